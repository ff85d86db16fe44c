"""Every file that a service writes a log into is rotated, and none grows without bound."""

import re

import pytest
from infra.tools import asked_by_itself
from waiting import wait_until

pytestmark = pytest.mark.hosts("all")
EVIDENCE = ["logrotate", "nginx"]

# Of a fixed size, or rewritten and not appended to: a record for each user.
BOUNDED = {"/var/log/lastlog", "/var/log/README", "/var/log/apt/eipp.log.xz"}
# systemd-journald keeps these below SystemMaxUse
OF_THE_JOURNAL = "/var/log/journal/"


def test_every_log_file_is_rotated_or_bounded(host):
    files = set(
        host.check_output("find /var/log -type f -not -name '*.gz' -not -name '*.[0-9]*'").splitlines()
    )
    said = host.run("logrotate --debug /etc/logrotate.conf").stderr
    rotated = set(re.findall(r"^considering log (\S+)$", said, re.M))
    assert {file for file in files - rotated - BOUNDED if not file.startswith(OF_THE_JOURNAL)} == set()


def test_every_log_file_has_a_largest_size(host):
    said = host.run("logrotate --debug /etc/logrotate.conf").stderr
    patterns = re.findall(r"^rotating pattern: (.*?) are (?:removed|mailed)", said, re.M | re.S)
    assert patterns
    assert [one for one in patterns if "log files >= " not in one] == []


def test_sizes_are_looked_at_every_few_minutes(host):
    assert host.service("logrotate.timer").is_running
    said = host.check_output("systemctl show --property=TimersCalendar --value logrotate.timer")
    assert "OnCalendar=*-*-* *:00/10:00" in said


def test_no_log_file_is_open_outside_of_the_directory_of_logs(host):
    """A service that writes a log elsewhere escapes the tests above."""
    said = host.check_output("find /proc/[0-9]*/fd -lname '/*' -printf '%l\\n' 2>/dev/null | sort -u || true")
    logs = [path for path in said.splitlines() if re.search(r"\.log(\.\d+)?$", path)]
    assert [path for path in logs if not path.startswith("/var/log/")] == []


@pytest.mark.disruptive
@pytest.mark.hosts("edge")
def test_nginx_writes_into_a_new_file_after_a_rotation(host, settings):
    log = "/var/log/nginx/access.log"
    before = host.check_output("stat -c %%i %s", log)
    asked_by_itself(host, settings)
    host.check_output("logrotate --force /etc/logrotate.d/nginx")
    assert host.check_output("stat -c %%i %s", log) != before

    def written():
        asked_by_itself(host, settings)
        return host.file(log).size > 0

    wait_until(written, "a line in the new file")
