import os
import re
import subprocess


def test_it_is_debian_13(host):
    assert (host.system_info.distribution, host.system_info.release.split(".")[0]) == ("debian", "13")


def test_nothing_failed(host):
    assert host.run("systemctl --failed --legend=no --plain").stdout == ""
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_the_time_zone_and_the_locale_are_those_set(host, settings):
    assert host.check_output("timedatectl show -P Timezone") == settings["site_timezone"]
    # ssh would send the caller's own along
    ours = {name: value for name, value in os.environ.items() if not re.match("LANG|LC_", name)}
    command = [*settings["host_login"], "locale"]
    login = subprocess.run(command, env=ours, capture_output=True, text=True, check=True)
    assert f"LANG={settings['site_locale']}" in login.stdout.splitlines()


def test_a_machine_of_this_host_has_all_its_cores(host, settings):
    """Mitogen binds Ansible's processes to one core each, and a machine that they boot inherits that."""
    if "machines_provider" not in settings:
        return  # a server of its own has what it has
    assert int(host.check_output("nproc")) == os.cpu_count()


def bytes_of(text):
    number, unit = re.fullmatch(r"([\d.]+)([KMGT]?)B?", text).groups()
    return float(number) * 1024 ** " KMGT".index(unit or " ")


def test_the_journal_outlives_a_restart_and_stays_within_its_bound(host, settings):
    """What happened before a crash can be read after it, and a loud service does not fill the disk."""
    files = re.findall(r"File path: (\S+)", host.check_output("journalctl --header"))
    assert files
    assert all(file.startswith("/var/log/journal/") for file in files), files
    effective = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    limit = re.findall(r"^SystemMaxUse=(\S+)", effective, re.MULTILINE)[-1]
    assert limit == settings["base_journal_max"]
    used = re.search(r"take up (\S+)", host.check_output("journalctl --disk-usage"))[1]
    assert bytes_of(used) <= bytes_of(limit)


def test_security_updates_install_themselves(host):
    """A server that nobody looks at for a month still gets the fixes of its packages."""
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.check_output("systemctl is-active %s", timer) == "active"
    told = host.check_output("apt-config dump")
    assert 'APT::Periodic::Update-Package-Lists "1";' in told
    assert 'APT::Periodic::Unattended-Upgrade "1";' in told
    origins = host.check_output(
        "python3 -c %s",
        "import apt_pkg; apt_pkg.init(); from importlib.machinery import SourceFileLoader as L; "
        "print(*L('u', '/usr/bin/unattended-upgrade').load_module().get_allowed_origins(), sep='\\n')",
    )
    assert "label=Debian-Security" in origins


def test_the_clock_is_kept_at_boot(host):
    assert host.check_output("systemctl is-enabled systemd-timesyncd.service") == "enabled"
