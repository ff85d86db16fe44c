"""What cannot work is refused before anything is touched, in a line that names the setting and the fix."""

import json
import os
import re
import subprocess

import pytest
import yaml
from house import ANSIBLE, ROOT, read_yaml

KEYS = {"site_operator_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF operator"]}
GOOD = KEYS | {"site_domain": "app.example.org"}
UNREACHABLE = {"ansible_host": "198.18.0.1", "ansible_ssh_common_args": "-o ConnectTimeout=1"}

IMPOSSIBLE_DOMAINS = ["http://app.example.org", "app_1.example.org", "300.1.1.1", "app", "App.example.org"]
DOMAINS = {"site_domain": IMPOSSIBLE_DOMAINS[0], "site_aliases": IMPOSSIBLE_DOMAINS[1:]}
PORT_USED_TWICE = {"redis_port": 6432}
OPERATOR_KEYS = [
    ([], "site_operator_keys is empty: name at least one SSH public key"),
    (["~/.ssh/nobody.pub"], "site_operator_keys holds '~/.ssh/nobody.pub', which is neither a public key"),
]
CELERY = [{"app_celery": path} for path in ("config.celery", "config.celery:app; id")]
APPLICATIONS = [
    (
        {"app_runtime": False, "app_settings_overlay": True},
        "app_runtime is false, and app_settings_overlay is true, which is pergola_runtime's: set app_",
    ),
    ({"app_runtime": False, "app_asgi": ""}, "app_runtime is false, and app_asgi is '', which is"),
    ({"app_runtime": "no"}, "app_runtime is 'no': write true or false"),
    (
        {"app_runtime": False, "app_http_server": "granian"},
        "app_runtime is false, and app_http_server is granian, which takes systemd's socket by",
    ),
    ({"app_http_server": "apache"}, "must be one of: gunicorn, gunicorn-asgi, uvicorn, hypercorn, gran"),
    (
        {"app_handler": "fast"},
        "app_handler is 'fast': value of app_handler must be one of: auto, lean, django",
    ),
    ({"app_threads": 0}, "app_threads is 0: synchronous code needs a thread, so write 1 or more"),
    ({"app_static_url": "static/"}, "app_static_url is 'static/': write it as a path such as /static/"),
    ({"app_media_url": "/"}, "app_media_url is '/': write it as a path such as /media/, or empty"),
    ({"app_media_url": "/ws/"}, "'/static/', '/ws/' and '/ws/': give each a path of its own"),
    ({"app_media_url": "/m/", "app_media": "none"}, "app_media_url is '/m/' and app_media is 'none': set"),
    ({"app_env": {"APP_SETTINGS_MODULE": "x"}}, "app_env holds APP_SETTINGS_MODULE: names are letters"),
]
# (role: (a setting and its value that the role's preflight.yml refuses, how the message goes on))
VALUES = {
    "base": [("base_log_max", "100MB", "write a size as logrotate has it, such as 100M")],
    "app": [("app_websocket_max_message", 0, "write a number of bytes, such as 1048576")],
    "deploy": [
        ("deploy_keep", 1, "the live release and the one to go back to stay, so write 2"),
        ("deploy_free_mb", -1, "it is a number of megabytes, so write 0 or more"),
    ],
    "postgresql": [
        ("database_locale", "english", "write C.UTF-8, an ICU locale with hyphens such as en or ko-KR"),
        ("database_statement_timeout", 60, "write a time with its unit, such as 60s or 5min"),
        ("database_transaction_timeout", "5m", "write a time with its unit, such as 60s or 5min"),
        ("database_idle_transaction_timeout", "-1", "write a time with its unit, such as 60s or 5min"),
        ("database_temporary_files", "10G", "write a size with its unit, such as 10GB"),
    ],
    "pgbouncer": [
        ("pgbouncer_instances", 1, "a restart needs one instance that takes over from another, so write 2"),
        ("pgbouncer_pool_size", 0, "a query needs a server connection, so write 1 or more"),
        ("pgbouncer_max_clients", 0, "a thread needs a connection, so write 1 or more"),
    ],
    "nginx": [
        ("nginx_limit_requests", 0, "to switch all limits off, set nginx_limit_exempt: [0.0.0.0/0, '::/0']"),
        ("nginx_limit_burst", -1, "write a number of requests"),
        ("nginx_limit_connections", 0, "write a number of requests in flight from 1 to 65535"),
        ("nginx_limit_websockets", 65536, "write a number of WebSockets from 1 to 65535"),
        ("nginx_limit_exempt", ["everybody"], "write a list of IP addresses and networks, such as"),
        ("nginx_trusted_proxies", ["0.0.0.0/0"], "write the balancers' own addresses, as every client could"),
        ("nginx_passed_headers", ["X-Own"], "write a list of headers that nginx removes"),
        ("nginx_proxy_protocol", True, "write the balancers' addresses into nginx_trusted_proxies as well"),
    ],
}
PARAMETERS = {"database_parameters": {"lock_timeout; DROP TABLE x": "10s"}}
# (role, task file) that refuses: the bad settings, each of which gets a host of its own in one shared run
SHARED_RUN = {
    ("preflight", "settings"): [DOMAINS, PORT_USED_TWICE],
    ("base", "preflight"): [{"site_operator_keys": keys} for keys, _ in OPERATOR_KEYS],
    ("app", "preflight"): [*CELERY, *(bad for bad, _ in APPLICATIONS)],
    ("postgresql", "preflight"): [PARAMETERS],
}
for ROLE, CASES in VALUES.items():
    SHARED_RUN.setdefault((ROLE, "preflight"), []).extend({name: value} for name, value, _ in CASES)


def refusal(done):
    """The message of the task that refused; nothing may have been changed or tried before it."""
    assert done.returncode != 0, done.stdout
    assert "changed=0" in done.stdout, done.stdout
    return " ".join((done.stdout + done.stderr).split())


def task_result(output, name):
    """What Ansible printed below the task's banner, which a skipped task has too; None without a banner."""
    found = re.search(
        rf"^TASK \[{re.escape(name)}\] \*+\n(.*?)^(?=\n|TASK|PLAY)", output + "\n\n", re.M | re.S
    )
    return found and found[1]


@pytest.fixture(scope="module")
def refused(module_playbook):
    """Returns a function that gives the messages by which a host with these settings was refused.

    Each start of site.yml takes more than a second of processor time, and its first play ends for all hosts
    as soon as one of them is refused. So one run of a play that goes on has a host for each of the bad
    settings of SHARED_RUN. It runs the check of every setting, and then the task file that is to refuse the
    host. The test of the settings of nginx's own pages proves that site.yml runs these task files.
    """
    cases = [(*check, bad) for check, settings in SHARED_RUN.items() for bad in settings]
    hosts = {
        f"case_{number}": UNREACHABLE | GOOD | bad | {"refusing": {"role": role, "file": file}}
        for number, (role, file, bad) in enumerate(cases)
    }
    groups = {name: {"hosts": {"case_0": None}} for name in ("edge", "web", "database", "redis")}
    groups |= {"worker": {"hosts": dict.fromkeys(hosts)}, "servers": {"hosts": hosts}}
    module_playbook.hosts(yaml.safe_dump(groups))
    checks = {"name": "{{ refusing.role }}", "tasks_from": "{{ refusing.file }}"}
    tasks = [{"check_settings": None}, {"ansible.builtin.include_role": checks}]
    folder = module_playbook.folder.parent
    for name in ("roles", "group_vars"):
        (folder / name).symlink_to(ANSIBLE / name)
    (folder / "checks.yml").write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}])
    )
    done = module_playbook.run(folder / "checks.yml", ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    assert done.returncode != 0, done.stdout
    results = re.findall(r"^(?:failed|fatal): \[(\w+)\].* => (\{.*\})$", done.stdout, re.M)

    def messages(bad):
        name = f"case_{[settings for _, _, settings in cases].index(bad)}"
        recap = re.search(rf"^{name} .*", done.stdout, re.M)[0]
        assert "changed=0" in recap
        assert "failed=1" in recap
        return "\n".join(json.loads(result)["msg"] for host, result in results if host == name)

    return messages


def test_impossible_domains_are_refused_and_each_is_named(refused):
    said = refused(DOMAINS)
    assert not [
        name for name in IMPOSSIBLE_DOMAINS if f"holds '{name}', which no client can look up" not in said
    ]


@pytest.mark.parametrize(("name", "value", "fix"), [case for cases in VALUES.values() for case in cases])
def test_a_value_that_cannot_work_is_refused(refused, name, value, fix):
    assert re.search(rf"{name} is {re.escape(str(value))}: .*{re.escape(fix)}", refused({name: value}))


def test_the_name_of_a_parameter_is_no_statement(refused):
    assert "database_parameters has 'lock_timeout; DROP TABLE x: 10s': write the name" in refused(PARAMETERS)


def test_a_port_used_twice_is_refused(refused):
    assert "is 6432, and so is redis_port: give each a port of its own" in refused(PORT_USED_TWICE)


@pytest.mark.parametrize(("keys", "line"), OPERATOR_KEYS)
def test_keys_that_would_lock_everybody_out_are_refused(refused, keys, line):
    assert line in refused({"site_operator_keys": keys})


def test_a_path_of_the_application_that_cannot_work_is_refused(refused):
    one, two = CELERY
    assert "app_celery is 'config.celery': write it as module:variable, such as" in refused(one)
    assert "app_celery is 'config.celery:app; id': write it as" in refused(two)


@pytest.mark.parametrize(("bad", "line"), APPLICATIONS)
def test_what_an_application_cannot_be_is_refused(refused, bad, line):
    assert line in refused(bad)


def test_every_bad_setting_is_named_at_once(playbook):
    playbook.settings(
        KEYS
        | {
            "site_domian": "app.example.org",
            "nginx_max_boddy": "1m",
            "site_https_port": "many",
            "pgbouncer_pool_size": "big",
            "app_celery": ["config.celery:app"],
            "app_celery_soft_seconds": "long",
            "app_media": "nfs",
            "app_processes": "web",
            "app_timers": [{"name": "clear"}],
        }
    )
    said = refusal(playbook.run())
    assert "site_domain is not set: The name or address that clients use for the site" in said
    assert "site_domian is not a setting of Pergola: did you mean site_domain?" in said
    assert "nginx_max_boddy is not a setting of Pergola: did you mean nginx_max_body?" in said
    assert "site_https_port is 'many': write a whole number, such as 443" in said
    assert "pgbouncer_pool_size is 'big': write a whole number" in said
    assert "app_celery is ['config.celery:app']: write a text, such as" in said
    assert "app_celery_soft_seconds is 'long': " in said
    assert "app_media is 'nfs': value of app_media must be one of: none, local, shared" in said
    assert "app_processes is 'web': " in said
    assert "missing required arguments: calendar, command found in app_timers" in said
    assert not (playbook.folder / "secrets").exists()


def web_hosts(**settings):
    """An inventory whose web hosts are told different things: one run shows what becomes of each."""
    hosts = {name: values | UNREACHABLE for name, values in settings.items()}
    one = {"hosts": {next(iter(hosts)): None}}
    groups = dict.fromkeys(("edge", "worker", "database", "redis"), one)
    return yaml.safe_dump({"servers": {"hosts": hosts}, "web": {"hosts": dict.fromkeys(hosts)}} | groups)


def failed(done):
    return set(re.findall(r"^(?:failed|fatal): \[(\w+)\]", done.stdout, re.M))


def test_files_on_one_of_several_web_hosts_are_refused(playbook):
    """What a visitor uploads to one would be missing on the others, every second time."""
    playbook.hosts(
        web_hosts(one={"app_media": "local"}, two={"app_media": "shared"}, three={"app_media": "none"})
    )
    done = playbook.run()
    line = "app_media is 'local', and the group 'web' has 3 hosts, each of which would lack the files of"
    assert line in refusal(done)
    assert failed(done) == {"one"}


def test_an_inventory_without_a_host_in_a_needed_group_is_refused(playbook):
    playbook.hosts("servers: {hosts: {one: {ansible_host: 198.18.0.1}}}\nedge: {hosts: {one: }}\n")
    assert "The group 'web' of" in refusal(playbook.run())


def make(*arguments, **environment):
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_STRATEGY": "linear"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("target", ["converge", "deploy", "url", "down", "up", "status"])
def test_an_unknown_environment_is_refused_with_those_that_there_are(target):
    done = make(target, "ENV=prodution")
    assert done.returncode != 0
    assert "ENV=prodution: no inventory of that name; there are local" in done.stderr


@pytest.mark.parametrize("target", ["up", "down"])
def test_machines_are_neither_made_nor_removed_for_an_inventory_of_servers(playbook, target):
    assert "use `make converge" in refusal(playbook.run(f"{target}.yml"))


def test_maintenance_is_on_or_off(playbook):
    said = refusal(playbook.run("maintenance.yml", "-e", "maintenance=yes"))
    assert "maintenance is 'yes': say -e maintenance=on or -e maintenance=off" in said


def test_settings_of_nginxs_own_pages_are_refused_and_each_is_named(playbook):
    """site.yml checks these settings last, so its output also shows that it ran the checks of SHARED_RUN."""
    bad = {
        "nginx_maintenance_allowed": ["203.0.113.7", "office"],
        "nginx_maintenance_retry_seconds": 0,
        "nginx_page_language": "한국어",
    }
    playbook.settings(GOOD | bad)
    done = playbook.run(ANSIBLE_DISPLAY_SKIPPED_HOSTS="true")
    said = refusal(done)
    for role, file in SHARED_RUN.keys() - {("nginx", "preflight")}:
        names = [task["name"] for task in read_yaml(ANSIBLE / f"roles/{role}/tasks/{file}.yml")]
        results = [task_result(done.stdout, f"{role} : {name}") for name in names]
        assert None not in results
        assert any("ok: [one]" in result for result in results), (role, file)
    assert "nginx_maintenance_allowed is ['203.0.113.7', 'office']: write a list of IP addresses" in said
    assert "nginx_maintenance_retry_seconds is 0: write a number of seconds" in said
    assert "nginx_page_language is 한국어: write the tag of a language, such as en or ko" in said
