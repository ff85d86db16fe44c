"""What is in inside/ runs on the replica's machine: its Python, its PostgreSQL and PgBouncer, both Djangos.

It brings services of its own, as a user of its own, and all of it is gone at the end: the application's stay
as they are.
"""

import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from faults.replica import Replica

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DJANGOS = ("5.2", "6.1")
USER = "pergola-lean"
PLACE = "/opt/pergola-lean"
SECONDS = 3600 if os.environ.get("FULL") else 300
MEMORY = "3G"

# tests/runtime/unit, and what they import, in the tree's own places
UNIT = ("runtime/src", "tests/runtime/unit", "tests/app/servers.py", "tests/debian.py", "tests/waiting.py")

collect_ignore = ["inside"]


def source_of(django, directory):
    """Django's source distribution, which has its tests; pip refuses one whose hash is not in the lock."""
    (pinned,) = re.findall(r"^django==(?:.*\\\n)*.*\n", (HERE / f"{django}.txt").read_text(), re.MULTILINE)
    (directory / "source.txt").write_text(pinned)
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    fetch += ["--require-hashes", "--ignore-requires-python", "--dest", directory]
    subprocess.run([*fetch, "--requirement", directory / "source.txt"], check=True)
    (archive,) = directory.glob("django-*.tar.gz")
    return archive


def without_bytecode(member):
    return None if "__pycache__" in member.name else member


class Machine(Replica):
    """The replica's, with what is tested brought to it."""

    def bring(self, archives):
        self.remove()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(HERE / "inside", "inside", filter=without_bytecode)
            archive.add(ROOT / "runtime/src/pergola_runtime", "pergola_runtime")
            for name, source in archives.items():
                archive.add(source, f"{name}.tar.gz")
                archive.add(HERE / f"{name}.txt", f"{name}.txt")
        self.run(f"useradd --system --home-dir {PLACE} --shell /usr/sbin/nologin {USER}")
        self.run(f"install -d -o {USER} -g {USER} -m 0700 {PLACE}")
        self.as_user(f"tar -C {PLACE} --extract --gunzip --no-same-owner", given=packed.getvalue())
        index = self.settings["app_python_index"]
        # as a deploy does it (infra/ansible/roles/deploy)
        uv = {"UV_SYSTEM_CERTS": "true", "UV_PYTHON_DOWNLOADS": "never"}
        if index:
            uv["UV_DEFAULT_INDEX"] = index
        for name in archives:
            self.as_user(
                f"mkdir {name} && tar -C {name} --extract --gunzip --strip-components=1 --file {name}.tar.gz"
                f" && uv venv -q --python /usr/bin/python3 venv-{name}"
                f" && uv pip install -q --python venv-{name}/bin/python --require-hashes -r {name}.txt",
                environment=uv,
            )

    def bring_unit_tests(self):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path in UNIT:
                archive.add(ROOT / path, f"tree/{path}", filter=without_bytecode)
        self.as_user(f"tar -C {PLACE} --extract --gunzip --no-same-owner", given=packed.getvalue())

    def as_user(self, command, given=b"", environment=None, check=True):
        """What it printed; it ends, with all it started, when its time is over."""
        environment = {"HOME": PLACE, "PYTHONPATH": PLACE} | (environment or {})
        unit = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", f"--unit={USER}"]
        unit += [f"--uid={USER}", f"--gid={USER}"]
        unit += [f"--property=RuntimeMaxSec={SECONDS}", f"--property=MemoryMax={MEMORY}"]
        # PostgreSQL waits for its clients for longer at a SIGTERM, and the next file needs the unit's name
        unit += ["--property=TimeoutStopSec=10"]
        unit += ["--property=LimitNOFILE=8192"]  # a thousand streams, each with a connection
        unit += ["--nice=5", f"--working-directory={PLACE}"]
        unit += [f"--setenv={name}={value}" for name, value in environment.items()]
        login = [*self.settings["host_login"], "--", "sudo " + shlex.join([*unit, "sh", "-c", command])]
        done = subprocess.run(login, input=given, capture_output=True, timeout=SECONDS + 60, check=False)
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0 or not check, f"{command}\n{said[-20000:]}"
        return said

    def remove(self):
        self.run(
            f"systemctl stop {USER}; userdel {USER}; rm -rf --one-file-system {PLACE} /tmp/lean-*",
            check=False,
        )


@pytest.fixture(scope="session")
def machine(servers, tmp_path_factory):
    providers = [settings.get("machines_provider") for settings in servers.settings.values()]
    if providers != ["nspawn"]:
        pytest.exit(
            f"ENV={servers.name}: these tests load what they run on, and it is not one local replica "
            "(make test-runtime-host brings one of its own up)",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    machine = Machine(servers)
    try:
        machine.bring({name: source_of(name, tmp_path_factory.mktemp(name)) for name in DJANGOS})
        yield machine
    finally:
        machine.remove()


@pytest.fixture(scope="session")
def unit_tests(machine):
    machine.bring_unit_tests()
