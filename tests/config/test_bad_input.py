"""What cannot work is refused before anything is touched, in a line that names the setting and the fix."""

import json
import os
import re
import subprocess

import pytest
import yaml
from house import ANSIBLE, ROOT, read_yaml

from pergola.environments import REQUIRED

KEYS = {"site_operator_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF operator"]}
GOOD = KEYS | {"site_domain": "app.example.org"}
UNREACHABLE = {"ansible_host": "198.18.0.1", "ansible_ssh_common_args": "-o ConnectTimeout=1"}

PORT_USED_TWICE = {"redis_port": 6432}
MAIL_FROM_NOBODY = {"site_mail_relay": "mail.example.org"}
APPLICATIONS = [
    (
        {"app_runtime": False, "app_settings_overlay": True},
        "app_runtime is false, and app_settings_overlay is true, which needs pergola_runtime: set app_",
    ),
    ({"app_runtime": False, "app_asgi": ""}, "app_runtime is false, and app_asgi is '', which needs"),
    (
        {"app_runtime": False, "app_http_server": "granian"},
        "app_runtime is false, and app_http_server is granian, which needs pergola_runtime for",
    ),
    ({"app_media_url": "/ws/"}, "'/static/', '/ws/' and '/ws/': give each a path of its own"),
    ({"app_media_url": "/m/", "app_media": "none"}, "app_media_url is '/m/' and app_media is 'none': set"),
    ({"app_env": {"APP_SETTINGS_MODULE": "x"}}, "app_env has APP_SETTINGS_MODULE, which Pergola sets itself"),
    (
        {
            "app_processes": [{"name": "x", "command": "y"}],
            "app_timers": [{"name": "x", "command": "y", "calendar": "daily"}],
        },
        "app_processes and app_timers are named x, x: use each name once",
    ),
]
NGINX = [
    (
        {"nginx_proxy_protocol": True},
        "nginx_proxy_protocol is true, and nginx_trusted_proxies is empty: write the balancers' addresses",
    ),
    (
        {"nginx_passed_headers": ["Via", "X-Own"]},
        "nginx_passed_headers has x-own: write only headers that nginx removes",
    ),
]
# (role, task file) that refuses: the bad settings, each of which gets a host of its own in one shared run
SHARED_RUN = {
    ("preflight", "settings"): [PORT_USED_TWICE, MAIL_FROM_NOBODY],
    ("app", "preflight"): [bad for bad, _ in APPLICATIONS],
    ("nginx", "preflight"): [bad for bad, _ in NGINX],
}


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
    host. The last test of this file proves that site.yml runs these task files.
    """
    cases = [(*check, bad) for check, settings in SHARED_RUN.items() for bad in settings]
    hosts = {
        f"case_{number}": UNREACHABLE | GOOD | bad | {"refusing": {"role": role, "file": file}}
        for number, (role, file, bad) in enumerate(cases)
    }
    # the play's first host is refused because the others differ
    hosts = {"first": UNREACHABLE | GOOD} | hosts
    groups = {name: {"hosts": {"first": None}} for name in ("edge", "web", "database", "redis")}
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


def test_ports_used_twice_are_refused(refused):
    line = "pgbouncer_port is 6432, redis_port is 6432: give each a port of its own"
    assert line in refused(PORT_USED_TWICE)


def test_mail_without_a_sender_is_refused(refused):
    line = "site_mail_from is '', and site_mail_relay is 'mail.example.org': write the sender's address"
    assert line in refused(MAIL_FROM_NOBODY)


@pytest.mark.parametrize(("bad", "line"), APPLICATIONS)
def test_settings_of_the_application_that_exclude_each_other_are_refused(refused, bad, line):
    assert line in refused(bad)


@pytest.mark.parametrize(("bad", "line"), NGINX)
def test_settings_of_nginx_that_exclude_each_other_are_refused(refused, bad, line):
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
    assert "site_domain is not set: write a full name in lower case, such as app.example.org" in said
    assert f"in {playbook.folder}/group_vars/servers.yml" in said
    assert "site_domian is not a setting of Pergola: did you mean site_domain?" in said
    assert "nginx_max_boddy is not a setting of Pergola: did you mean nginx_max_body?" in said
    assert "site_https_port is 'many': write a whole number from 1 to 65535, such as 443" in said
    assert "pgbouncer_pool_size is 'big': write 1 or more, as a query needs a server connection" in said
    assert "app_celery is ['config.celery:app']: write module:variable, such as" in said
    assert "app_celery_soft_seconds is 'long': write a whole number of 1 or more, such as 10" in said
    assert "app_media is 'nfs': write none, local or shared" in said
    assert "app_processes is 'web': write a list of mappings with name, command and" in said
    assert "app_timers holds {'name': 'clear'}, which lacks command, calendar: write a list of" in said
    assert not (playbook.folder / "secrets").exists()


def web_hosts(**settings):
    """An inventory whose web hosts are told different things: one run shows what becomes of each."""
    hosts = {name: values | UNREACHABLE for name, values in settings.items()}
    one = {"hosts": {next(iter(hosts)): None}}
    groups = dict.fromkeys(("edge", "worker", "database", "redis"), one)
    return yaml.safe_dump({"servers": {"hosts": hosts}, "web": {"hosts": dict.fromkeys(hosts)}} | groups)


def failed(done):
    return set(re.findall(r"^(?:failed|fatal): \[(\w+)\]", done.stdout, re.M))


def test_the_environment_may_contain_secrets_that_are_there(playbook):
    """Checked when they are loaded."""
    hosts = {
        name: UNREACHABLE
        | GOOD
        | {"app_env": {"STRIPE_KEY": f"{{{{ secrets_values.{key} }}}}"}, "kept": "sk_live_1"}
        for name, key in (("one", "stripe_key"), ("two", "strip_key"))
    }
    groups = {name: {"hosts": dict.fromkeys(hosts)} for name in REQUIRED}
    playbook.hosts(yaml.safe_dump(groups | {"servers": {"hosts": hosts}}))
    tasks = [
        {"check_settings": None},
        {"ansible.builtin.set_fact": {"secrets_values": {"stripe_key": "{{ kept }}"}}},
        {"check_settings": {"prefix": "app_env"}},
    ]
    folder = playbook.folder.parent
    for name in ("roles", "group_vars"):
        (folder / name).symlink_to(ANSIBLE / name)
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    (folder / "checks.yml").write_text(yaml.safe_dump([play]))
    done = playbook.run(folder / "checks.yml", ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    assert re.search(r"^one .* ok=3 .* failed=0", done.stdout, re.M), done.stdout
    assert re.search(r"^two .* ok=2 .* failed=1", done.stdout, re.M), done.stdout
    assert "app_env cannot be worked out (" in done.stdout
    assert "sk_live_1" not in done.stdout


def test_files_on_one_of_several_web_hosts_are_refused(playbook):
    """What a visitor uploads to one would be missing on the others, every second time."""
    playbook.hosts(web_hosts(one={}, two={}))
    line = "app_media is 'local', and the group 'web' has 2 hosts, each of which would lack the files of"
    assert line in refusal(playbook.run())


def test_a_setting_in_the_wrong_group_is_refused(playbook):
    """nginx would send WebSockets to two processes of each host, one of which has four."""
    playbook.hosts(web_hosts(one={"app_threads": 4}, two={"app_websocket_processes": 4}))
    (playbook.folder / "group_vars/all.yml").write_text("app_demo: python demo.py\n")
    done = playbook.run()
    said = refusal(done)
    place = f"set it in {playbook.folder}/group_vars/servers.yml"
    assert f"app_websocket_processes differs between hosts (2 on one, 4 on two): {place}" in said
    assert f"app_demo has no effect in {playbook.folder}/group_vars/all.yml, where Pergola's" in said
    assert "app_threads" not in said
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
    assert "maintenance is 'yes': set -e maintenance=on or -e maintenance=off" in said


def test_site_runs_each_check(playbook):
    """site.yml checks nginx's settings last, so its output shows that it ran all the checks of SHARED_RUN."""
    playbook.settings(GOOD | NGINX[0][0])
    done = playbook.run(ANSIBLE_DISPLAY_SKIPPED_HOSTS="true")
    said = refusal(done)
    for role, file in SHARED_RUN.keys() - {("nginx", "preflight")}:
        names = [task["name"] for task in read_yaml(ANSIBLE / f"roles/{role}/tasks/{file}.yml")]
        results = [task_result(done.stdout, f"{role} : {name}") for name in names]
        assert None not in results
        assert any("ok: [one]" in result for result in results), (role, file)
    assert NGINX[0][1] in said
