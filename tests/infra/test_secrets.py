"""Who can read a secret: on the server root and the service that needs it, here the operator."""

import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from infra.tools import read_secrets, secret_lines

# where the converge, a deploy, a log or a person could have left one; the database has its own test
PLACES = (
    "/etc /home /opt /root /run /srv /tmp /usr/local /var/backups /var/cache /var/log /var/spool /var/tmp"
)


@pytest.fixture(scope="module")
def secrets(settings):
    found = read_secrets(settings)
    if not found:
        pytest.skip(f"{settings['secrets_file']} is not on this machine")
    return found


@pytest.fixture
def search(settings, connections, host_name):
    """Run shell as root on the host, with the lines to look for on its standard input: in no argv, no log."""

    def run(lines, script):
        target = f"{settings['site_operator_user']}@{settings.get('ansible_host', host_name)}"
        command = ["ssh", *shlex.split(connections(host_name)), target, f"sudo sh -c {shlex.quote(script)}"]
        done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
        assert done.stderr == "", done.stderr
        return done.stdout.splitlines()

    return run


def test_the_secrets_file_belongs_to_the_operator_alone(secrets, settings):
    path = Path(settings["secrets_file"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_secrets_are_strong(secrets):
    passwords = {name: value for name, value in secrets.items() if name != "authority_key"}
    assert all(len(value) >= 40 and len(set(value)) > 15 for value in passwords.values())
    assert len(set(passwords.values())) == len(passwords)


def test_one_file_of_the_server_holds_secrets(host, secrets, settings, search):
    found = search(secret_lines(secrets), f"grep -rlsIF --devices=skip -f /dev/stdin {PLACES} || :")
    assert found == ([settings["app_env_file"]] if {"web", "worker"} & set(settings["group_names"]) else [])


def test_the_authoritys_key_never_leaves_the_control_machine(host, secrets, settings, search):
    """Who has it can pretend to be the site to everybody who trusts the authority."""
    lines = secret_lines({"authority_key": secrets["authority_key"]})
    assert lines
    assert search(lines, f"grep -rlsF --devices=skip -f /dev/stdin {PLACES} || :") == []


def test_no_command_line_holds_a_secret(host, secrets, search):
    """Every user can read those of all processes."""
    script = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -cF -f /dev/fd/3 3<&0"
    assert search(secret_lines(secrets), f"exec 4<&0; {script.replace('3<&0', '3<&4')} || :") == ["0"]


def test_the_journal_holds_no_secret(host, secrets, search):
    """The converge, sudo, systemd and the application all write there."""
    script = "exec 4<&0; journalctl --no-pager --output=cat | grep -cF -f /dev/fd/3 3<&4 || :"
    assert search(secret_lines(secrets), script) == ["0"]


def test_the_application_alone_has_them_in_its_environment(host, secrets, settings, search):
    script = (
        "patterns=$(cat); for process in /proc/[0-9]*; do"
        ' printf "%s" "$patterns" | grep -qzsF -f /dev/stdin $process/environ && stat -c %U $process;'
        " done; :"
    )
    users = set(search(secret_lines(secrets), script))
    assert users == ({settings["app_user"]} if "web" in settings["group_names"] else set())


def readers(settings):
    """{path: the users who can read it}"""
    groups = settings["group_names"]
    paths = {"/etc/nftables.conf": {"root"}, "/etc/sudoers.d/pergola": {"root"}, "/etc/shadow": {"root"}}
    if {"web", "worker"} & set(groups):
        paths[settings["app_env_file"]] = {"root"}
        paths["/etc/pgbouncer/pgbouncer.ini"] = {"root", "pgbouncer"}
        paths[f"{settings['app_home']}/live/source/{settings['app_directory']}/manage.py"] = {
            "root",
            settings["app_user"],
        }
    if "edge" in groups:
        paths[f"{settings['nginx_tls_directory']}/site.key"] = {"root"}
        paths["/var/log/nginx/access.log"] = {"root", "www-data"}
    if "redis" in groups:
        paths["/etc/redis/users.acl"] = {"root", "redis"}
        paths["/var/lib/redis/appendonlydir"] = {"root", "redis"}
    if "database" in groups:
        version = settings["postgresql_version"]
        paths[f"/var/lib/postgresql/{version}/main/PG_VERSION"] = {"root", "postgres"}
        paths[f"/etc/postgresql/{version}/main/pg_hba.conf"] = {"root", "postgres"}
    return paths


def test_only_those_who_need_it_can_read_what_is_private(host, settings):
    """Asked as every user that the host has, the operator without sudo among them."""
    wanted = readers(settings)
    paths = " ".join(wanted)
    missing = host.run(f"stat -c '' {paths}")
    assert missing.rc == 0, missing.stderr
    said = host.check_output(
        f"for user in $(cut -d: -f1 /etc/passwd); do for path in {paths}; do"
        " runuser -u $user -- test -r $path && echo $path $user; done; done; :"
    )
    found = {path: set() for path in wanted}
    for line in said.splitlines():
        path, user = line.split()
        found[path].add(user)
    assert found == wanted


@pytest.mark.hosts("web")
def test_the_environment_file_is_roots(host, settings):
    file = host.file(settings["app_env_file"])
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)


def test_the_key_that_signs_is_as_long_as_django_wants_it(secrets):
    """Under 50 characters `manage.py check --deploy` warns (security.W009)."""
    assert len(secrets["django_key"]) >= 50
