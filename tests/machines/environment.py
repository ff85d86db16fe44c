"""An environment of the tests' own, and what this host shows of it."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from pergola.environments import REQUIRED

ROOT = Path(__file__).parents[2]
ANSIBLE = ROOT / "infra/ansible"
STATES = Path(os.environ.get("PERGOLA_STATE") or ROOT / ".pergola").absolute()
IMAGES = Path(os.environ.get("PERGOLA_IMAGES") or STATES / "images").absolute()


class Environment:
    """One environment: an inventory and a state directory."""

    def __init__(self, states, inventory=ANSIBLE / "inventory/local", root=ROOT):
        self.root = root
        self.states = states
        self.inventory = inventory
        self.state = states / inventory.name

    def variables(self):
        return os.environ | {
            "PERGOLA_STATE": str(self.states),
            "PERGOLA_IMAGES": str(IMAGES),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        }

    def ansible(self, program, *arguments, before=()):
        command = [*before, Path(sys.executable).with_name(program), "-i", self.inventory, *arguments]
        where = {"stdin": subprocess.DEVNULL, "cwd": self.root, "env": self.variables()}
        return subprocess.run(command, capture_output=True, text=True, check=False, **where)

    def play(self, verb, *arguments, **options):
        done = self.ansible(
            "ansible-playbook", self.root / f"infra/ansible/{verb}.yml", *arguments, **options
        )
        done.changed = sum(map(int, re.findall(r"changed=(\d+)", done.stdout)))
        return done

    def works(self, verb, *arguments):
        done = self.play(verb, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def refuses(self, verb, *arguments, **options):
        """What it said, in its one line."""
        done = self.play(verb, *arguments, **options)
        assert done.returncode, done.stdout
        assert done.changed == 0, done.stdout
        line = re.findall(r'"msg": (".*")', done.stdout)[-1]
        return json.loads(line)

    @property
    def record(self):
        return json.loads((self.state / "machines.json").read_text())

    def ssh(self, command, name="app", login="root"):
        listed = json.loads(self.ansible("ansible-inventory", "--list").stdout)["_meta"]["hostvars"][name]
        reach = ["-o", "BatchMode=yes", "-i", listed["ansible_ssh_private_key_file"]]
        reach += shlex.split(listed["ansible_ssh_common_args"])
        command = ["ssh", *reach, f"{login}@{listed['ansible_host']}", command]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def processes(self, pattern=""):
        """Numbers, as the host counts, of this environment's processes whose command line matches."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_text().replace("\0", " ")
                ours = f"/pergola-{self.record['id']}-" in (process / "cgroup").read_text()
                if ours and re.search(pattern, command):
                    found.append(int(process.name))
        return found

    def init(self):
        """The machine's first process, as the host counts."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE) and "State:\tZ" not in status:
                    return pid
        return None


class Server(Environment):
    """One fresh machine that answers as root, under an inventory of servers."""

    def __init__(self, machine, folder):
        super().__init__(folder / "states", inventory=folder / "server")
        self.machine = machine
        self.address = machine.record["addresses"]["app"]
        self.key = machine.state / "ssh/id_ed25519"
        self.secrets = self.inventory / "secrets/secrets.yml"
        self.vault = folder / "vault-password"
        self.vault.write_text("correct horse battery staple\n")
        (self.inventory / "group_vars").mkdir(parents=True)
        hosts = {name: {"hosts": {"one": {}}} for name in ("server", *REQUIRED)}
        hosts["server"]["hosts"]["one"] = {"ansible_host": self.address}
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))

    def variables(self):
        return super().variables() | {"ANSIBLE_VAULT_PASSWORD_FILE": str(self.vault)}

    def settings(self, **settings):
        settings = {
            "site_domain": "app.example.org",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.machine.state}/known_hosts",
        } | settings
        (self.inventory / "group_vars/server.yml").write_text(yaml.safe_dump(settings))

    def reach(self):
        options = ["-o", "BatchMode=yes", "-o", "ControlPath=none", "-i", self.key]
        return [*options, "-o", f"UserKnownHostsFile={self.machine.state}/known_hosts"]

    def answers(self, user, *command):
        return subprocess.run(
            ["ssh", *self.reach(), f"{user}@{self.address}", *(command or ["true"])],
            capture_output=True,
            text=True,
            check=False,
        )


def listing(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def traces(*needles):
    """Everything on this host that names one of these: links, firewall, mounts, control groups, processes."""
    seen = [
        *listing("ip", "-oneline", "-details", "link"),
        *listing("nft", "list", "ruleset"),
        *Path("/proc/self/mounts").read_text().splitlines(),
        # os.walk passes over a directory that vanishes meanwhile, as those of other tests' machines do
        *(where for where, _, _ in os.walk("/sys/fs/cgroup") if "pergola" in Path(where).name),
        *(str(Path(where, file)) for where, _, files in os.walk("/run/systemd/nspawn") for file in files),
        *(where for where, _, _ in os.walk("/run/systemd/nspawn")),
        *(line for line in listing("ps", "-eo", "args") if "pytest" not in line),
    ]
    return [line for line in seen if any(needle in line for needle in needles)]
