"""What the tests of a host need more than once."""

import base64
import contextlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from waiting import wait_until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
numbers = itertools.count(1)

# systemd's own limit is five within ten seconds
MORE_THAN_SYSTEMD_STARTS = 6


def beside_the_slots(settings):
    """Names of the application's units that no slot holds."""
    return [*settings["app_celery_parts"], *(process["name"] for process in settings["app_processes"])]


def run_probe(host, settings, code, before=""):
    """What the code printed as JSON. The unit's name brings the drop-in of every app-* service with it.

    `before` is shell that runs, as root, beside the probe; the probe's standard input ends when it is done.
    """
    packed = base64.b64encode(code.encode()).decode()
    python = f"{settings['app_home']}/live/venv/bin/python"
    unit = f"app-probe-{os.getpid()}-{next(numbers)}"
    command = (
        f"systemd-run --quiet --collect --wait --pipe --unit={unit} {python} -c "
        f"'import base64; exec(base64.b64decode(\"{packed}\"))'"
    )
    done = host.run(f"{{ {before}; }} | {command}" if before else command)
    assert done.rc == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


ASK = """
import http.client, ssl, sys, time
for _ in range(int(sys.argv[3])):
    began = time.monotonic()
    one = http.client.HTTPSConnection("127.0.0.1", context=ssl._create_unverified_context(), timeout=60)
    one.request("GET", sys.argv[2], headers={"Host": sys.argv[1]})
    answer = one.getresponse()
    answer.read()
    print(answer.status, time.monotonic() - began, flush=True)
    time.sleep(0.1)
"""


def asked_by_itself(host, settings, path="/", times=1):
    """Requests from the host itself, whose address no inventory exempts from limits: [(status, seconds)]."""
    name = urlsplit(settings["site_url"]).netloc
    said = host.check_output("python3 -c %s %s %s %s", ASK, name, path, str(times))
    return [(int(status), float(seconds)) for status, seconds in map(str.split, said.splitlines())]


def shell(host, code):
    """What the code prints, in the application's own environment."""
    return host.check_output(f"app-manage shell --no-imports -v 0 -c {shlex.quote(code)}")


@contextlib.contextmanager
def stopped(host, unit):
    """With this unit stopped; afterwards it runs again."""
    host.check_output("systemctl stop %s", unit)
    try:
        yield
    finally:
        host.check_output("systemctl start %s", unit)


@contextlib.contextmanager
def changed(host, path, command):
    """With this file changed by a command; afterwards it is as it was, with its owner and mode."""
    host.check_output("cp -a %s %s.kept", path, path)
    try:
        host.check_output(command)
        yield
    finally:
        host.check_output("mv %s.kept %s", path, path)


def live_slot(host, settings):
    return host.check_output(f"basename $(readlink {settings['app_home']}/live)")


def main_process(host, unit):
    return int(host.check_output("systemctl show -P MainPID %s", unit))


def killed(host, unit):
    """Its main process, as by the kernel where memory ends. Returns when another has come."""
    before = main_process(host, unit)
    host.check_output("kill -KILL %s", str(before))
    # RestartSec is one or two seconds everywhere
    wait_until(lambda: main_process(host, unit) not in (0, before), f"{unit} to come back", 40)


def children(host, pid):
    return {int(child) for child in host.run("pgrep -P %s", str(pid)).stdout.split()}


def journal(host, *arguments):
    return host.check_output(f"journalctl --no-pager --output=cat {' '.join(arguments)}")


class Secrets(dict):
    """{name: value}; a test that fails prints names alone."""

    def __repr__(self):
        return f"<{', '.join(self)}>"


def read_secrets(settings):
    """Nothing where this machine does not have them."""
    path = Path(settings["secrets_file"])
    if not path.exists():
        return Secrets()
    text = path.read_text()
    if text.startswith("$ANSIBLE_VAULT"):
        text = subprocess.run(
            [BIN / "ansible-vault", "view", path], capture_output=True, text=True, check=True
        ).stdout
    return Secrets(yaml.safe_load(text))


class Hidden(tuple):
    def __repr__(self):
        return f"<{len(self)} lines>"


def secret_lines(secrets):
    """What to look for: passwords, and each line of a key's body. In a tuple that prints as its length."""
    lines = [line for value in secrets.values() for line in value.split("\n")]
    return Hidden(line for line in lines if len(line) >= 16 and not line.startswith("-----"))


def play(inventory, *playbooks, arguments=(), **environment):
    """ansible-playbook as make calls it; `changed` is what its recap says of each host."""
    files = [f"infra/ansible/{name}.yml" for name in playbooks]
    done = subprocess.run(
        [BIN / "ansible-playbook", "-i", inventory, *files, *arguments],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    found = re.findall(r"^(\S+)\s+: .*?changed=(\d+)", recap, re.MULTILINE)
    done.changed = {name: int(count) for name, count in found}
    return done


def inventory_of(servers):
    return f"infra/ansible/inventory/{servers.name}"
