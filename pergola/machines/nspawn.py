"""One machine as processes: its control groups, its memory limit, and systemd-nspawn under a supervisor."""

import contextlib
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from pergola.machines import cgroups
from pergola.machines.network import bridge_name
from pergola.machines.record import Record
from pergola.machines.system import attempt, wait_for

REBOOT = 133  # exit status of systemd-nspawn --keep-unit if the machine asked for a reboot
PARTS = ("watch", "machine")  # control groups: the supervisor's, and that of what it boots


class Machine:
    def __init__(self, state: Path, record: Record, name: str) -> None:
        self.name = name
        self.state = state
        self.home = state / "machines" / name
        self.root = self.home / "root"
        self.log = state / f"console-{name}.log"
        self.address = record.addresses.get(name, "")
        self.network = record.subnet
        self.nspawn_name = f"{bridge_name(self.network)}-{name}"
        group = f"pergola-{record.id}-{name}"
        self.group = cgroups.group(group)
        self.memory_group = cgroups.memory_group(group)

    def pids(self, part: str) -> list[str]:
        return cgroups.processes(self.group / part)

    def ended(self, part: str) -> bool:
        return not self.pids(part)

    def init(self) -> int | None:
        """The machine's PID 1 as the host numbers it."""
        depth = len(status("self")["NSpid"].split())
        for pid in self.pids("machine"):
            seen = status(pid)
            numbers = seen.get("NSpid", "").split()
            if len(numbers) == depth + 1 and numbers[-1] == "1" and not seen["State"].startswith("Z"):
                return int(pid)
        return None

    def running(self) -> bool:
        """Whether its init and its supervisor live. One alone is a short moment: a boot, a reboot, an end."""
        settled = wait_for(lambda: self.init() or not self.pids("watch"), 10)
        return bool(settled and self.init() and self.pids("watch"))

    def kill(self) -> None:
        for part in PARTS:
            cgroups.kill(self.group / part)
            if not wait_for(partial(self.ended, part), 20):
                sys.exit(f"{self.name}: processes in {self.group / part} survive SIGKILL.")
        self.clear_groups()

    def clear_groups(self) -> None:
        for mount in cgroups.mounts():  # systemd-nspawn copies its group into hierarchies that we do not use
            cgroups.remove(mount / self.group.name)
        # what a killed systemd-nspawn could not remove
        for leftover in Path("/run/systemd/nspawn").glob(f"*/{self.nspawn_name}"):
            attempt("umount", "--quiet", str(leftover))
            with contextlib.suppress(OSError):
                leftover.rmdir()

    def limit_memory(self, text: str) -> bool:
        """Limit the machine to this much memory and no swap. Return False if this host cannot enforce it."""
        size = str(size_of(text))
        self.memory_group.mkdir(exist_ok=True)
        if self.memory_group == self.group:
            files = {"memory.max": size, "memory.swap.max": "0"}
            with contextlib.suppress(OSError):
                (self.group.parent / "cgroup.subtree_control").write_text("+memory")
        else:
            files = {"memory.limit_in_bytes": size, "memory.memsw.limit_in_bytes": size}
        limit, swap = (self.memory_group / file for file in files)
        if not limit.exists():
            return False
        if limit.read_text().strip() == size:
            return True
        if swap.exists() and swap.name == "memory.memsw.limit_in_bytes":
            swap.write_text("-1")  # may never be below the other limit
        limit.write_text(size)
        if swap.exists():
            swap.write_text(files[swap.name])
        print(f"{self.name}: memory limited to {text}")
        return True

    def start(self) -> None:
        """Start the supervisor, which goes on when the terminal, the session and Ansible have ended."""
        for part in PARTS:
            (self.group / part).mkdir(parents=True, exist_ok=True)

        def join() -> None:
            for group in {self.group / "watch", self.memory_group} - {self.group}:
                cgroups.join(group)

        # -B: root writes no compiled files into a checkout, which its owner could not delete
        subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-B", "-m", "pergola.machines"),
                *(f"--state={self.state}", "supervise", self.name),
            ],
            cwd=Path(__file__).parents[2],  # where -m finds the package, installed or not
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=join,
        )

    def command(self) -> list[str]:
        return [
            "systemd-nspawn",
            f"--directory={self.root}",
            f"--machine={self.nspawn_name}",
            f"--hostname={self.name}",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--settings=no",
            "--private-users=no",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
            "--console=read-only",
            f"--network-bridge={bridge_name(self.network)}",
            # without these three, systemd in the machine accepts IPAddressDeny and does not enforce it
            "--capability=CAP_BPF,CAP_PERFMON",
            "--system-call-filter=bpf",
        ]

    def supervise(self) -> None:
        """Run the machine until it ends, and again each time that it reboots."""
        # the machine, not its supervisor, decides when it has ended
        signal.signal(signal.SIGTERM, lambda *_: None)

        def join() -> None:
            cgroups.join(self.group / "machine")
            # mitogen binds each of Ansible's processes, of which this is a descendant, to one core
            os.sched_setaffinity(0, range(os.cpu_count() or 1))

        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        code = REBOOT
        while code == REBOOT:
            done = attempt(*self.command(), env=environment, preexec_fn=join, capture_output=False)
            code = done.returncode
            # if only systemd-nspawn was killed, the machine still runs
            cgroups.kill(self.group / "machine")
            wait_for(partial(self.ended, "machine"), 20)
            for group in (self.group / "machine").glob("*/"):
                cgroups.remove(group)


def size_of(text: str) -> int:
    """512M or 2G in bytes."""
    return int(text[:-1]) << {"M": 20, "G": 30}[text[-1]]


def status(pid: str) -> dict[str, str]:
    """The fields of /proc/PID/status; none if the process has ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {}
