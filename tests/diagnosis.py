"""What a machine shows when a test of it failed: read-only, in one command, bounded in length."""

import shlex
import subprocess

# Hosts that are asked in one run. The first failures show the cause, and a host that is down costs 60 s each
# time.
MOST = 5
asked = []

SHOWN = """
echo "--- failed units"; systemctl --failed --no-pager --legend=no --plain
echo "--- queued jobs"; systemctl list-jobs --no-pager --legend=no
echo "--- load and processes by CPU"; cat /proc/loadavg
ps -eo pcpu,etimes,stat,user:12,args --sort=-pcpu | cut -c1-150 | head -n 12
echo "--- memory"; free -m
echo "--- warnings since the test began"
journalctl --no-pager -n 30 -p warning --since=@{since}
"""


def script(since, units=()):
    """A shell script for root. `since` is the time at which the test began, in seconds of the epoch."""
    lines = SHOWN.format(since=int(since))
    if units:
        names = " ".join(f"-u {shlex.quote(unit)}" for unit in units)
        lines += f'echo "--- {" ".join(units)}"\njournalctl --no-pager -n 40 --since=@{int(since)} {names}\n'
    return lines


def ask(settings, since, units=()):
    """The same from a host of an environment, as (title, text)."""
    asked.append(settings["inventory_hostname"])
    if len(asked) > MOST:
        return "not asked again", f"{MOST} failures have shown their hosts already"
    command = [*settings["host_login"], "--", f"sudo sh -c {shlex.quote(script(since, units))}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return f"{settings['inventory_hostname']}, when the test had failed", done.stdout + done.stderr
