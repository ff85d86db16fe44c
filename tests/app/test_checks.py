from types import SimpleNamespace

import pytest
from config import checks
from django.conf import settings as original
from django.core.management import call_command

POSTGRESQL = {"ENGINE": "django.db.backends.postgresql", "NAME": "app", "CONN_MAX_AGE": 0}
POOLED = POSTGRESQL | {"DISABLE_SERVER_SIDE_CURSORS": True}
BOTH = {"default": POOLED, "direct": POSTGRESQL}


def core_layer(**config):
    return {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": config}}


URL = "redis://127.0.0.1:6379"
PATIENT = core_layer(hosts=[{"address": URL, "socket_timeout": None}])
GOOD = {"DATABASES": BOTH, "TIME_ZONE": "UTC", "CHANNEL_LAYERS": PATIENT}

BREACHES = {
    "E001": (
        checks.no_long_kept_connections,
        {"DATABASES": BOTH | {"default": POOLED | {"CONN_MAX_AGE": 60}}},
    ),
    "E001 for ever": (
        checks.no_long_kept_connections,
        {"DATABASES": BOTH | {"direct": {"CONN_MAX_AGE": None}}},
    ),
    "E002": (checks.no_cursors_on_the_server, {"DATABASES": BOTH | {"default": POSTGRESQL}}),
    "E003": (checks.a_direct_alias, {"DATABASES": {"default": POOLED}}),
    "E004": (
        checks.direct_is_the_same_database,
        {"DATABASES": BOTH | {"direct": POSTGRESQL | {"NAME": "b"}}},
    ),
    "E005": (checks.one_time_zone, {"TIME_ZONE": "Europe/Berlin"}),
    "E006": (
        checks.no_core_layer_with_a_timeout,
        {"CHANNEL_LAYERS": core_layer(hosts=[URL])},
    ),
    "E006 by default": (
        checks.no_core_layer_with_a_timeout,
        {"CHANNEL_LAYERS": core_layer()},
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_told_with_its_id_and_a_hint(monkeypatch, breach):
    check, values = BREACHES[breach]
    monkeypatch.setattr(checks, "settings", SimpleNamespace(**GOOD | values))
    (error,) = check()
    assert error.id == f"pergola.{breach.split()[0]}"
    assert error.hint


# in one order, or parallel runs would not agree on what there is to test
CHECKS = sorted({check for check, _ in BREACHES.values()}, key=lambda check: check.__name__)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_good_settings_pass(monkeypatch, check):
    monkeypatch.setattr(checks, "settings", SimpleNamespace(**GOOD))
    assert check() == []


def test_the_sample_passes_djangos_checks_for_production():
    assert original.SILENCED_SYSTEM_CHECKS == ["security.W004", "security.W008"]
    call_command("check", deploy=True, fail_level="WARNING")
