"""A project that knows nothing of Pergola gets what production needs by pergola_runtime.settings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pergola_runtime.overlay import LAST_CACHE_NUMBER, over

RUNTIME = Path(__file__).parents[2] / "runtime/src"
ENVIRONMENT = {
    "SECRET_KEY": "5ecret" * 10,
    "ALLOWED_HOSTS": "app.example.org, www.example.org",
    "CSRF_TRUSTED_ORIGINS": "https://app.example.org",
    "DATABASE_URL": "postgresql://app:p%40ss@%2Frun%2Fpgbouncer:6432/app",
    "DATABASE_DIRECT_URL": "postgresql://app:p%40ss@%2Frun%2FpostgreSQL:5432/app",
    "REDIS_URL": "redis://app:secret@127.0.0.1:6379/0",
    "STATIC_ROOT": "/srv/app/static",
}
# what `django-admin startproject` writes, and a person adds
PROJECT = """
SECRET_KEY = "django-insecure-of-the-project"
DEBUG = True
ALLOWED_HOSTS = []
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "shop.urls"
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages"]},
}]
WSGI_APPLICATION = "shop.wsgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
STATIC_URL = "assets/"
STATICFILES_DIRS = ["assets"]
USE_TZ = True
"""
WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "assets").mkdir()
    (tmp_path / "shop/__init__.py").write_text("")
    (tmp_path / "shop/settings.py").write_text(PROJECT)
    (tmp_path / "shop/urls.py").write_text("urlpatterns = []\n")
    (tmp_path / "shop/wsgi.py").write_text(WSGI)
    return tmp_path


def run(project, *arguments, **environment):
    told = ENVIRONMENT | {
        "STATIC_ROOT": str(project / "collected"),
        "DJANGO_SETTINGS_MODULE": "pergola_runtime.settings",
        "APP_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": f"{RUNTIME}:{project}",
        "PATH": "/usr/bin:/bin",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=told | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_production_needs_is_set_and_the_rest_is_the_projects(project):
    shown = run(
        project,
        "-c",
        "import django; django.setup(); from django.conf import settings as s; "
        "from django.db import connection as c; "
        "print(s.DEBUG, "
        "s.SECRET_KEY == '5ecret' * 10, s.ALLOWED_HOSTS, s.ROOT_URLCONF, s.STATIC_URL, c.vendor)",
    )
    assert shown.stderr == ""
    hosts = ["app.example.org", "www.example.org"]
    assert shown.stdout.strip() == f"False True {hosts} shop.urls /assets/ postgresql"


def test_django_finds_nothing_to_say_before_a_deploy(project):
    done = run(project, "-m", "django", "check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr


def test_a_project_without_asgi_gets_the_handler_that_is_chosen(project):
    done = run(project, "-m", "gunicorn", "--check-config", "pergola_runtime.serving:application")
    assert done.returncode == 0, done.stderr
    assert "pergola_runtime's handler serves" in done.stderr


def test_an_application_that_insists_on_settings_of_its_own_is_refused(project):
    """It would run with DEBUG and the key that stands in its repository, and nobody would know."""
    (project / "shop/wsgi.py").write_text(
        WSGI.replace('os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")', "")
        .replace("import os\n", "import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n")
        .replace("get_wsgi_application()\n", "get_wsgi_application()\n")
    )
    refused = run(project, "-m", "pergola_runtime.overlay", "shop.wsgi:application")
    assert refused.returncode == 1
    assert "shop.wsgi sets DJANGO_SETTINGS_MODULE to shop.settings whatever the environment" in refused.stderr


def test_static_files_get_a_hash_and_a_file_that_was_never_there_breaks_nothing(project):
    (project / "assets/site.css").write_text("body { background: url(here.png) url(nowhere.png) }")
    (project / "assets/here.png").write_text("a picture")
    done = run(project, "-m", "django", "collectstatic", "--no-input")
    assert done.returncode == 0, done.stderr
    (css,) = (path for path in (project / "collected").glob("site.*.css"))
    assert "here." in css.read_text()
    assert 'url("nowhere.png")' in css.read_text()
    # the list of names is the release's, and not the directory's that all releases share
    assert (project / "staticfiles.json").exists()
    assert not (project / "collected/staticfiles.json").exists()
    shown = run(
        project,
        "-c",
        "import django; django.setup(); from django.templatetags.static import static; "
        "print(static('site.css'), static('nowhere.png'))",
    )
    assert shown.stdout.split() == [f"/assets/{css.name}", "/assets/nowhere.png"], shown.stderr


def test_it_says_what_it_lacks(project):
    refused = run(project, "-m", "django", "check", REDIS_URL="")
    assert "pergola_runtime.settings wants REDIS_URL in the environment" in refused.stderr
    refused = run(project, "-m", "django", "check", APP_SETTINGS_MODULE="nowhere.settings")
    assert "No module named 'nowhere'" in refused.stderr


def test_the_database_is_reached_through_the_pooler_and_directly():
    set_ = over({"DATABASES": {"default": {"ATOMIC_REQUESTS": True}, "old": {"NAME": "x"}}}, ENVIRONMENT)
    default, direct = set_["DATABASES"]["default"], set_["DATABASES"]["direct"]
    assert default == {
        "ATOMIC_REQUESTS": True,
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "app",
        "USER": "app",
        "PASSWORD": "p@ss",
        "HOST": "/run/pgbouncer",
        "PORT": "6432",
        "OPTIONS": {},
        "CONN_MAX_AGE": 0,
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }
    assert (direct["HOST"], direct["PORT"], direct["TEST"]) == (
        "/run/postgreSQL",
        "5432",
        {"MIRROR": "default"},
    )
    assert set_["DATABASES"]["old"] == {"NAME": "x"}


def test_an_engine_of_its_own_that_is_postgresql_stays():
    engine = "django.contrib.gis.db.backends.postgis"
    set_ = over({"DATABASES": {"default": {"ENGINE": engine, "HOST": "localhost"}}}, ENVIRONMENT)
    assert set_["DATABASES"]["default"]["ENGINE"] == engine


def test_what_a_project_wants_of_its_database_stays():
    own = {
        "CONN_HEALTH_CHECKS": True,
        "TEST": {"NAME": "other"},
        "OPTIONS": {
            "pool": {"max_size": 4},
            "isolation_level": 3,
            "host": "db.example.org",
            "service": "shop",
        },
    }
    set_ = over({"DATABASES": {"default": own}}, ENVIRONMENT)
    default, direct = set_["DATABASES"]["default"], set_["DATABASES"]["direct"]
    assert (default["CONN_HEALTH_CHECKS"], default["TEST"]) == (True, {"NAME": "other"})
    assert default["OPTIONS"] == {"pool": {"max_size": 4}, "isolation_level": 3}
    assert direct["OPTIONS"] == {"isolation_level": 3}


def test_options_in_the_url_reach_the_driver():
    url = f"{ENVIRONMENT['DATABASE_DIRECT_URL']}?options=-c%20statement_timeout%3D0"
    set_ = over({}, ENVIRONMENT | {"DATABASE_DIRECT_URL": url})
    assert set_["DATABASES"]["direct"]["OPTIONS"] == {"options": "-c statement_timeout=0"}


@pytest.mark.parametrize(
    ("own", "fix"),
    [
        (
            {"OPTIONS": {"options": "-c statement_timeout=5s -c search_path=shop"}},
            "set database_parameters to {statement_timeout: 5s, search_path: shop} instead, or use the alias",
        ),
        ({"OPTIONS": {"assume_role": "clerk"}}, "set database_parameters to {role: clerk} instead"),
        ({"ENGINE": "django_tenants.postgresql_backend"}, "set pgbouncer_pool_mode to session"),
        ({"ENGINE": "tenant_schemas.postgresql_backend"}, "set pgbouncer_pool_mode to session"),
    ],
)
def test_what_does_not_work_through_the_pooler_is_refused_with_the_way_around(own, fix):
    with pytest.raises(SystemExit, match=re.escape(fix)):
        over({"DATABASES": {"default": own}}, ENVIRONMENT)


def test_an_engine_that_needs_its_session_works_with_session_pooling():
    own = {"ENGINE": "django_tenants.postgresql_backend"}
    set_ = over({"DATABASES": {"default": own}}, ENVIRONMENT | {"PERGOLA_POOL_MODE": "session"})
    assert set_["DATABASES"]["default"]["ENGINE"] == own["ENGINE"]


REDIS_CACHE = "django.core.cache.backends.redis.RedisCache"


@pytest.mark.parametrize(
    ("own", "backend"),
    [
        ({}, REDIS_CACHE),
        ({"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}, REDIS_CACHE),
        ({"BACKEND": "django.core.cache.backends.dummy.DummyCache"}, REDIS_CACHE),
        (
            {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://localhost"},
            "django_redis.cache.RedisCache",
        ),
    ],
)
def test_a_cache_that_each_process_has_for_itself_becomes_one_for_all(own, backend):
    set_ = over({"CACHES": {"default": own, "files": {"BACKEND": "file"}}}, ENVIRONMENT)
    assert set_["CACHES"]["default"] == {"BACKEND": backend, "LOCATION": ENVIRONMENT["REDIS_URL"]}
    assert set_["CACHES"]["files"] == {"BACKEND": "file"}


def numbers_of(**own):
    """The number of each alias's database in Redis."""
    set_ = over({"CACHES": own}, ENVIRONMENT)
    return {alias: int(cache["LOCATION"].rpartition("/")[2]) for alias, cache in set_["CACHES"].items()}


def cache(location, backend=REDIS_CACHE, **options):
    return {"BACKEND": backend, "LOCATION": location, "OPTIONS": options}


@pytest.mark.parametrize("backend", [REDIS_CACHE, "django_redis.cache.RedisCache"])
def test_caches_in_databases_of_their_own_stay_apart(backend):
    """Otherwise one alias reads what another wrote under the same key, and its clear() empties both."""
    own = {
        "default": cache("redis://localhost/1", backend),
        "pages": cache("redis://:secret@127.0.0.1:6379/1", backend) | {"KEY_PREFIX": "pages"},
        "sessions": cache("redis://localhost/2", backend),
        "replicated": cache(["redis://a/3", "redis://b/3"], backend),
        "numbered": cache("redis://localhost", backend, db=4),
        "pooled": cache("redis://localhost:6379", backend, CONNECTION_POOL_KWARGS={"db": 5, "timeout": 1}),
        "asked": cache("redis://localhost?db=6", backend),
        "near": cache("unix:///run/redis.sock?db=7", backend),
        "elsewhere": cache("redis://other/1", backend),
    }
    numbers = numbers_of(**own)
    assert numbers.pop("pages") == numbers["default"] == 0
    assert len(set(numbers.values())) == len(numbers)
    set_ = over({"CACHES": own}, ENVIRONMENT)["CACHES"]
    assert "db" not in set_["numbered"]["OPTIONS"]
    assert set_["pooled"]["OPTIONS"] == {"CONNECTION_POOL_KWARGS": {"timeout": 1}}


def test_an_alias_more_moves_no_other():
    """Two releases serve during a deploy, and a rollback goes back to the earlier one."""
    before = {"default": cache("redis://h/0"), "sessions": cache("redis://h/2")}
    after = {"api": cache("redis://h/1"), "sessions": before["sessions"], "default": before["default"]}
    assert numbers_of(**before).items() <= numbers_of(**after).items()


def test_no_cache_has_the_database_of_jobs_or_of_messages():
    layers = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}
    set_ = over({"CHANNEL_LAYERS": layers}, ENVIRONMENT)
    layer = set_["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"][0]["address"]
    others = {int(url.rpartition("/")[2]) for url in (set_["CELERY_BROKER_URL"], layer)}
    caches = {f"c{number}": cache(f"redis://h/{number}") for number in range(1 + LAST_CACHE_NUMBER)}
    assert len(others) == 2
    assert not others & set(numbers_of(**caches).values())


@pytest.mark.parametrize("location", ["redis://other/1", f"redis://h/{LAST_CACHE_NUMBER + 1}"])
def test_a_cache_that_would_share_a_database_with_another_is_refused(location):
    own = {"one": cache("redis://h/1"), "two": cache(location)}
    with pytest.raises(
        SystemExit, match=r"CACHES\['two'\] is in database .*: name a number that no other Redis"
    ):
        numbers_of(**own)


def test_a_cache_in_the_database_stays():
    own = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}
    assert over({"CACHES": {"default": own}}, ENVIRONMENT)["CACHES"]["default"] == own


def test_consumers_of_several_processes_meet():
    url = ENVIRONMENT["REDIS_URL"].replace("/0", "/2")
    memory = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    for own in ({}, memory):
        assert over({"CHANNEL_LAYERS": own}, ENVIRONMENT)["CHANNEL_LAYERS"]["default"] == {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [url]},
        }
    core = {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [("localhost", 6379)], "capacity": 5},
    }
    assert over({"CHANNEL_LAYERS": {"default": core}}, ENVIRONMENT)["CHANNEL_LAYERS"]["default"][
        "CONFIG"
    ] == {
        "hosts": [{"address": url, "socket_timeout": None}],
        "capacity": 5,
    }


def test_jobs_have_a_redis_database_of_their_own():
    set_ = over({"CELERY_RESULT_BACKEND": "redis://localhost/3"}, ENVIRONMENT)
    assert set_["CELERY_BROKER_URL"] == set_["CELERY_RESULT_BACKEND"] == "redis://app:secret@127.0.0.1:6379/1"


def test_a_cookie_for_another_site_becomes_one_for_this():
    """A browser would throw it away, and nobody could log in."""
    own = {"SESSION_COOKIE_DOMAIN": "127.0.0.1", "CSRF_COOKIE_DOMAIN": ".example.org"}
    set_ = over(own, ENVIRONMENT)
    assert set_["SESSION_COOKIE_DOMAIN"] is None
    assert "CSRF_COOKIE_DOMAIN" not in set_


def test_mail_goes_to_the_relay_where_there_is_one():
    console = {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}
    assert "EMAIL_BACKEND" not in over(console, ENVIRONMENT)
    relay = {"EMAIL_HOST": "mail.example.org", "EMAIL_PORT": "2525", "DEFAULT_FROM_EMAIL": "app@example.org"}
    set_ = over(console, ENVIRONMENT | relay)
    assert set_["EMAIL_BACKEND"] == "django.core.mail.backends.smtp.EmailBackend"
    assert (set_["EMAIL_HOST"], set_["EMAIL_PORT"], set_["SERVER_EMAIL"]) == (
        "mail.example.org",
        2525,
        "app@example.org",
    )
    mailers = over({"MAILERS": {}}, ENVIRONMENT | relay)
    assert mailers["MAILERS"]["default"]["OPTIONS"] == {"host": "mail.example.org", "port": 2525}
    assert "EMAIL_HOST" not in mailers


def test_log_files_become_the_journals():
    own = {
        "version": 1,
        "handlers": {
            "file": {"class": "logging.FileHandler", "filename": "/var/log/shop.log", "level": "INFO"},
            "mail": {"class": "django.utils.log.AdminEmailHandler"},
        },
    }
    handlers = over({"LOGGING": own}, ENVIRONMENT)["LOGGING"]["handlers"]
    assert handlers["file"] == {"class": "logging.StreamHandler", "level": "INFO"}
    assert handlers["mail"] == own["handlers"]["mail"]
