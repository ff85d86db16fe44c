"""Each setting is defined once, in the file that its prefix names, and refuses values that cannot work."""

import re

import pytest
import yaml
from house import ANSIBLE, ROLES, ROOT, options

from pergola import settings as module
from pergola.settings import Settings, UnknownValueError, document

SETTINGS = Settings(ANSIBLE)
NUMBERS = [name for name, one in SETTINGS.settings.items() if one.spec.type == "int"]
# what an environment must set, and the mark of an inventory of machines
WITHOUT_DEFAULT = {"site_domain", "machines_provider"}
# settings whose default is worked out, as the comment above each of them says
FORMULAS = {
    "app_web_workers",
    "app_celery_processes",
    "app_processes",
    "app_timers",
    "app_demo",
    "pgbouncer_max_clients",
    "postgresql_shared_buffers_mb",
    "postgresql_effective_cache_mb",
    "postgresql_max_connections",
}
# inputs that the playbook of machines passes
PASSED = {"machines_state", "machines_images"}

# (a setting, a value that is refused, how the message goes on)
REFUSED = [
    ("app_runtime", "no", "write true or false"),
    ("app_runtime", "false", "write true or false"),
    ("app_http_server", "apache", "write gunicorn, gunicorn-asgi, uvicorn, hypercorn, granian or daphne"),
    ("app_handler", "fast", "write auto, lean or django"),
    ("app_threads", 0, "write 1 or more, as synchronous code needs a thread (default: 3)"),
    ("app_threads", True, "write 1 or more"),
    ("app_celery", "config.celery", "write module:variable, such as config.celery:app, or empty"),
    ("app_celery", "config.celery:app; id", "write module:variable, such as"),
    ("app_websocket_path", "x", "write a path such as /ws/, or empty"),
    ("app_websocket_max_message", 0, "write a number of bytes, such as 1048576"),
    ("app_websocket_processes", 17, "write a whole number from 1 to 16, such as 2"),
    ("app_static_url", "static/", "write a path such as /static/ (the path alone where"),
    ("app_media_url", "/", "write a path such as /media/, or empty"),
    ("app_celery", None, "write module:variable"),
    ("app_home", "srv/app", "write an absolute path, such as /srv/app"),
    ("site_domain", "http://app.example.org", "write a full name in lower case"),
    ("site_domain", "app_1.example.org", "write a full name in lower case"),
    ("site_domain", "App.example.org", "write a full name in lower case"),
    ("site_domain", "app", "write a full name in lower case"),
    ("site_domain", "300.1.1.1", "write a full name in lower case"),
    ("site_timezone", "Seoul;", "write a name of the tz database"),
    ("base_log_max", "100MB", "write a size in the syntax of logrotate, such as 100M"),
    ("base_reboot_time", 270, 'write a time in quotes, such as "04:30", or empty'),  # 04:30 in YAML 1.1
    ("deploy_keep", 1, "write 2 or more, as the live release and the one to go back to stay"),
    ("deploy_free_mb", -1, "write a whole number of 0 or more"),
    ("database_locale", "english", "write C.UTF-8, an ICU locale with hyphens such as en or ko-KR"),
    ("database_statement_timeout", 60, "write a time with its unit, such as 60s or 5min"),
    ("database_transaction_timeout", "5m", "write a time with its unit, such as 60s or 5min"),
    ("database_idle_transaction_timeout", "-1", "write a time with its unit, such as 60s or 5min"),
    ("database_temporary_files", "10G", "write a size with its unit, such as 10GB"),
    ("pgbouncer_instances", 1, "write 2 or more, as a restart needs one instance that takes over"),
    ("pgbouncer_pool_size", 0, "write 1 or more, as a query needs a server connection"),
    ("pgbouncer_max_clients", 0, "write 1 or more, as a thread needs a connection"),
    ("nginx_limit_requests", 0, "to switch all limits off, set nginx_limit_exempt: [0.0.0.0/0, '::/0']"),
    ("nginx_limit_burst", -1, "write a number of requests"),
    ("nginx_limit_connections", 0, "write a number of requests from 1 to 65535"),
    ("nginx_limit_websockets", 65536, "write a number of WebSockets from 1 to 65535"),
    ("nginx_maintenance_retry_seconds", 0, "write a whole number of 1 or more, such as 300"),
    ("nginx_page_language", "한국어", "write the tag of a language, such as en or ko"),
    ("nginx_page_language", False, "write the tag of a language"),  # `no` in YAML 1.1
    ("machines_memory", "lots", "write a number and M or G, such as 2G"),
]
# (a setting, its value, the element that is refused, how the message goes on)
ELEMENTS = [
    ("site_aliases", ["a.example.org", "b"], "b", "write a full name in lower case"),
    ("site_operator_keys", ["~/.ssh/nobody.pub"], "~/.ssh/nobody.pub", "write at least one SSH public key"),
    ("nginx_limit_exempt", ["10.0.0.0/8", "everybody"], "everybody", "write a list of IP addresses and"),
    ("nginx_trusted_proxies", ["0.0.0.0/0"], "0.0.0.0/0", "write a list of the balancers' own IP addresses"),
    ("nginx_maintenance_allowed", ["203.0.113.7", "office"], "office", "write a list of IP addresses and"),
    ("app_reach", ["localhost", "example.org"], "example.org", "write a list of IP addresses and networks"),
    ("redis_listen", ["10.0.0.0/8"], "10.0.0.0/8", "write a list of IP addresses"),
    ("app_packages", [["gdal-bin"]], ["gdal-bin"], "write a list"),
]
MAPPINGS = [
    (
        {"database_parameters": {"lock_timeout; DROP TABLE x": "10s"}},
        "database_parameters has the name 'lock_timeout; DROP TABLE x': write the name of a PostgreSQL",
    ),
    (
        {"database_parameters": {"search_path": ["shop", "public"]}},
        "database_parameters has a value for search_path that is not one line of text or a number: write",
    ),
    ({"app_env": {"2FA": "x"}}, "app_env has the name '2FA': write names of letters, digits and _"),
    ({"app_env": {"KEY": "s3cret\nx"}}, "app_env has a value for KEY that is not one line of text or a"),
    ({"app_timers": [{"name": "x"}]}, "app_timers holds {'name': 'x'}, which lacks command, calendar: write"),
    (
        {"app_processes": [{"name": "x", "command": "y", "user": "z"}]},
        "app_processes holds {'name': 'x', 'command': 'y', 'user': 'z'}, where user has no effect: write",
    ),
    (
        {"app_processes": [{"name": "worker", "command": "y"}]},
        "name of app_processes is 'worker': write lower case letters, digits and dashes, and none of web",
    ),
]


def refused(values):
    """The problems with these values, and no others."""
    needed = {"site_domain": "app.example.org", "site_operator_keys": ["ssh-ed25519 AAAAC3NzaC1 operator"]}
    return SETTINGS.check(needed | values)


def test_the_page_of_the_settings_is_generated():
    """`make settings-doc` writes it."""
    assert (ROOT / "docs/settings.md").read_text() == document(SETTINGS)


def test_the_page_of_the_settings_has_no_long_cell():
    rows = [line for line in document(SETTINGS).splitlines() if line.startswith("|")]
    assert [cell for row in rows for cell in row.split(" | ") if len(cell) > 204] == []


def test_each_setting_has_one_option_in_the_specs():
    assert set(SETTINGS.defaults) == set(SETTINGS.settings) - WITHOUT_DEFAULT
    names = [name for role in ROLES for name in options(role) | options(role, "settings")]
    assert sorted(names) == sorted(set(names))


def test_each_setting_is_in_the_file_of_its_prefix():
    strays = [
        name
        for files in (SETTINGS.people, SETTINGS.derived)
        for file, names in files.items()
        for name in names
        if file != "wiring" and not name.startswith(f"{file}_") and (file, name) != ("host", "ansible_user")
    ]
    assert strays == []


def test_no_setting_is_defined_twice():
    """YAML takes the last of two equal keys without a word, so this reads lines."""
    files = (ANSIBLE / "group_vars/all").glob("*.yml")
    names = [name for file in files for name in re.findall(r"^(\w+):", file.read_text(), re.M)]
    assert sorted(names) == sorted(set(names))


def test_the_part_for_people_holds_literals():
    assert {name for name, value in SETTINGS.defaults.items() if module.holds_formula(value)} == FORMULAS


@pytest.mark.parametrize("name", SETTINGS.settings)
def test_a_setting_has_an_effect(name):
    effect = SETTINGS.settings[name].spec.effect
    assert effect.endswith(".")
    assert 20 < len(effect) <= 200


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_has_a_unit_and_a_range(name):
    spec = SETTINGS.settings[name].spec
    assert spec.lines["Unit"]
    assert spec.choices or spec.limits != (None, None)


def test_wiring_passes_values_to_inputs_of_roles():
    reference = re.compile(r"\{\{ [a-z_]+(\.[a-z_]+)? \}\}")
    assert [name for name, text in SETTINGS.derived["wiring"].items() if not reference.fullmatch(text)] == []
    assert set(SETTINGS.derived["wiring"]) <= set(SETTINGS.inputs)


def test_each_input_of_a_role_has_a_value():
    assert set(SETTINGS.inputs) - set(SETTINGS.formulas) == PASSED


def test_every_default_is_accepted():
    literal = {name: value for name, value in SETTINGS.defaults.items() if name not in FORMULAS}
    del literal["site_operator_keys"]
    assert refused(literal) == []


@pytest.mark.parametrize(("name", "value", "fix"), REFUSED)
def test_a_value_that_cannot_work_is_refused(name, value, fix):
    (line,) = refused({name: value})
    assert line.startswith(f"{name} is {value!r}: ")
    assert fix in line
    assert "\n" not in line


@pytest.mark.parametrize(("name", "value", "element", "fix"), ELEMENTS)
def test_an_element_that_cannot_work_is_refused(name, value, element, fix):
    (line,) = refused({name: value})
    assert line.startswith(f"{name} holds {element!r}: {fix}")


@pytest.mark.parametrize(("values", "start"), MAPPINGS)
def test_a_mapping_that_cannot_work_is_refused_without_its_values(values, start):
    (line,) = refused(values)
    assert line.startswith(start)
    assert "s3cret" not in line


def test_keys_are_needed():
    (line,) = refused({"site_operator_keys": []})
    assert line.startswith("site_operator_keys has 0 elements: write at least one SSH public key")


def test_values_that_work_are_accepted(tmp_path):
    key = tmp_path / "key.pub"
    key.write_text("ssh-ed25519 AAAA operator")
    values = {
        "site_domain": "198.51.100.7",
        "site_aliases": ["xn--bcher-kva.example", "a-b.example.org"],
        "site_operator_keys": [str(key)],
        "site_https_port": "8443",  # -e passes text
        "deploy_allow_unsafe_migrations": "true",
        "database_statement_timeout": 0,
        "database_parameters": {"app.tenant": "x", "lock_timeout": "10s", "jit": False},
        "app_reach": ["any", "10.0.0.1", "2001:db8::/32", "localhost"],
        "app_celery": "",
        "app_processes": [{"name": "side-car", "command": "x", "socket": "/run/app/x.sock"}],
        "base_reboot_time": "04:30",
        "nginx_max_body": 0,
    }
    assert refused(values) == []


def test_a_setting_that_is_not_set_is_refused():
    given = {"site_operator_keys": ["ssh-ed25519 AAAA x"], "site_domain": None}
    (line,) = SETTINGS.check(given, place="here")
    assert line.startswith("site_domain is not set: write a full name in lower case, such as app.example.org")
    assert line.endswith(", in here")


def test_an_unknown_name_is_refused_with_a_close_one():
    unknown = "is not a setting of Pergola"
    assert refused({"site_domian": "x"}) == [f"site_domian {unknown}: did you mean site_domain?"]
    assert refused({"redis_something": 1}) == [f"redis_something {unknown}: remove it"]
    assert refused({"other_setting": 1, "__app_internal": 1}) == []


def test_a_renamed_setting_is_refused_with_its_new_name(monkeypatch):
    monkeypatch.setitem(module.RENAMED, "nginx_body", "nginx_max_body")
    assert refused({"nginx_body": "1m"}) == ["nginx_body was renamed: write nginx_max_body"]


def test_a_value_that_uses_an_old_name_is_refused_with_the_new_one():
    def work_out(value):
        if "{{" in str(value):
            raise UnknownValueError("'state_directory' is undefined")
        return value

    given = {"site_domain": "a.example.org", "site_operator_keys": ["{{ state_directory }}/id.pub"]}
    assert SETTINGS.check(given, work_out) == [
        "site_operator_keys cannot be worked out ('state_directory' is undefined): "
        "state_directory was renamed, write environment_state_directory"
    ]


def test_names_that_were_renamed_are_gone():
    assert not set(module.RENAMED) & SETTINGS.known
    assert set(module.RENAMED.values()) <= SETTINGS.known


def test_a_prefix_limits_the_check():
    given = {"machines_memory": "lots", "machines_memry": "2G", "app_threads": 0, "app_thread": 1}
    lines = SETTINGS.check(given, prefix="machines_")
    assert [line.split()[0] for line in lines] == ["machines_memry", "machines_memory"]


def test_a_setting_that_differs_between_hosts_is_refused():
    hosts = {
        "one": {"app_media": "shared", "app_threads": 3},
        "two": {"app_media": "shared", "app_threads": 4},
        "three": {"app_media": "none", "app_threads": 3},
    }
    assert SETTINGS.differing(hosts, "here") == [
        "app_media differs between hosts ('shared' on one, 'none' on three): set it in here"
    ]


def test_a_setting_where_the_default_has_priority_is_refused(tmp_path):
    (tmp_path / "group_vars/all").mkdir(parents=True)
    (tmp_path / "group_vars/all/own.yml").write_text("site_domain: a.example.org\napp_media: none\nmine: 1\n")
    groups = {
        "servers": {"hosts": {"one": {"app_threads": 4}}, "vars": {"nginx_max_body": "1m", "mine": 1}},
        "all": {"children": {"web": {"vars": {"redis_port": 1}}}},
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(groups))
    lines = SETTINGS.without_effect(tmp_path, "here")
    assert [line.split()[0] for line in lines] == ["app_media", "nginx_max_body", "redis_port"]
    assert lines[0] == (
        f"app_media has no effect in {tmp_path}/group_vars/all/own.yml, "
        "where Pergola's default has priority: set it in here"
    )
