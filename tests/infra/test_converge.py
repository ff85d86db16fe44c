"""The playbooks, run again on what they built, and what they refuse for the sake of a server's state."""

import re
from pathlib import Path

import pytest
from infra.tools import changed, inventory_of, main_process, play, read_secrets, secret_lines

from pergola.environments import REQUIRED

pytestmark = pytest.mark.disruptive


def refusal(done):
    """The one line that says what is wrong."""
    assert done.returncode != 0, done.stdout
    assert done.changed, done.stdout + done.stderr
    assert set(done.changed.values()) == {0}, done.stdout
    said = set(re.findall(r'"msg": "(.*)"', done.stdout))
    assert len(said) == 1, done.stdout
    return said.pop()


AS_JSON = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}


def test_a_second_converge_changes_nothing(servers):
    """What a converge changes each time hides what it changed this time."""
    done = play(inventory_of(servers), "site", "deploy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.changed == dict.fromkeys(servers.settings, 0), re.findall(
        r"TASK \[.*\n(?:.*\n)*?changed: .*", done.stdout
    )


@pytest.mark.parametrize("strategy", ["mitogen", pytest.param("linear", marks=pytest.mark.full)])
def test_check_mode_changes_nothing(servers, strategy):
    """On a server that stands, also without mitogen."""
    arguments = ["--check", "--diff"]
    done = play(inventory_of(servers), "site", "deploy", arguments=arguments, ANSIBLE_STRATEGY=strategy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.changed == dict.fromkeys(servers.settings, 0), done.stdout


@pytest.mark.hosts("web")
def test_more_workers_than_the_cores_carry_are_refused(servers, host):
    said = refusal(play(inventory_of(servers), "site", arguments=["-e", "app_web_workers=99"], **AS_JSON))
    assert re.search(r"app_web_workers is 99, and \S+ has \d+ cores: choose between 1 and \d+", said)


@pytest.mark.hosts("edge")
def test_what_the_live_release_does_not_bring_is_not_put_into_its_units(servers, host, settings):
    """They would be restarted, and the site would not come back."""
    packages = f"{settings['app_home']}/live/venv/lib/python3.13/site-packages"
    host.check_output(f"mv {packages}/pergola_runtime {packages}/aside")
    try:
        done = play(inventory_of(servers), "site")
    finally:
        host.check_output(f"mv {packages}/aside {packages}/pergola_runtime")
    assert done.returncode
    assert set(done.changed.values()) == {0}
    said = " ".join(done.stdout.split())
    missing = "pergola_runtime/serving.py, pergola_runtime/jobs.py"
    assert f"has no {missing}, so that the site would not start again: run make deploy" in said


def test_a_converge_that_was_cut_off_is_finished_by_the_next(servers, host):
    """Cut off between a file and its restart, the file is there and its state is not recorded as applied."""
    before = main_process(host, "nginx.service")
    host.check_output("rm /var/lib/pergola/nginx-units")
    first, second = (play(inventory_of(servers), "site", arguments=["--tags", "nginx"]) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stdout + second.stdout
    assert main_process(host, "nginx.service") not in (0, before)
    assert set(second.changed.values()) == {0}, second.stdout


@pytest.mark.hosts("web")
def test_a_look_says_what_would_change_and_shows_no_secret(servers, host, settings):
    """The two files with secrets differ from what they should be, and so does one without."""
    with (
        changed(host, settings["app_env_file"], f"echo X=1 >> {settings['app_env_file']}"),
        changed(host, "/etc/tmpfiles.d/app.conf", "echo '# changed by hand' >> /etc/tmpfiles.d/app.conf"),
    ):
        done = play(
            inventory_of(servers),
            "site",
            arguments=["--check", "--diff", "--tags", "app", "--limit", host_of(settings)],
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "-# changed by hand" in done.stdout
        assert done.changed[host_of(settings)] >= 2
        shown = done.stdout + done.stderr
        assert [line for line in secret_lines(read_secrets(settings)) if line in shown] == []
        assert host.run("grep -q X=1 %s", settings["app_env_file"]).rc == 0, "a look must change nothing"


def host_of(settings):
    return settings["inventory_hostname"]


@pytest.mark.hosts("web")
def test_a_converge_without_the_secrets_is_refused(servers, host, settings):
    """New ones would lock the application out of its data."""
    path = Path(settings["secrets_file"])
    before = host.check_output("sha256sum %s", settings["app_env_file"])
    aside = path.with_name("aside.yml")
    path.rename(aside)
    try:
        said = refusal(play(inventory_of(servers), "site", **AS_JSON))
        assert not path.exists()
    finally:
        aside.rename(path)
    assert str(path) in said
    assert "Get the file from" in said
    assert host.check_output("sha256sum %s", settings["app_env_file"]) == before


@pytest.mark.hosts("web")
def test_a_host_that_is_not_debian_13_is_refused_by_name(servers, host, settings):
    """Asked of a real host that says so itself: its release files are covered for the while."""
    other = 'PRETTY_NAME="Ubuntu 24.04 LTS"\\nNAME="Ubuntu"\\nVERSION_ID="24.04"\\nID=ubuntu\\n'
    host.check_output(
        f"printf '{other}' > /run/os-release && mount --bind /run/os-release /usr/lib/os-release"
    )
    try:
        said = refusal(play(inventory_of(servers), "site", **AS_JSON))
    finally:
        host.check_output("umount /usr/lib/os-release && rm /run/os-release")
    assert said.startswith(f"{host_of(settings)} runs Ubuntu 24.04")
    assert "Debian 13" in said


@pytest.mark.full  # it waits for the host
def test_a_host_that_does_not_answer_is_refused(tmp_path):
    """In a bounded time, and with the two users that were tried."""
    inventory = tmp_path / "nowhere"
    inventory.mkdir()
    groups = "".join(f"{name}:\n  hosts:\n    web1:\n" for name in ("nowhere", *REQUIRED))
    (inventory / "hosts.yml").write_text(groups)
    (inventory / "group_vars").mkdir()
    (inventory / "group_vars/nowhere.yml").write_text(
        "site_domain: app.example.org\n"
        "ansible_host: 198.18.255.254\n"  # in no network that machines take: a state's /24 ends below
        'site_operator_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE somebody"]\n'
    )
    done = play(inventory, "site", **AS_JSON)
    said = set(re.findall(r'"msg": "(web1 .*)"', done.stdout))
    assert done.returncode != 0
    assert len(said) == 1, done.stdout
    assert "accepts no login as ops or as root" in said.pop()
