"""Debian packages that tests need on this computer."""

import fcntl
import os
import shutil
import subprocess


def may_install():
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(*packages):
    """Install these with the newest lists; raises AssertionError with apt's own words.

    Tests that run at the same time, and `make up`, wait for each other: `apt-get update` fails where another
    one is running (pergola.machines takes the same lock).
    """
    apt = os.open("/var/lib/apt", os.O_RDONLY)
    try:
        fcntl.flock(apt, fcntl.LOCK_EX)
        for arguments in (["update"], ["-y", "--no-install-recommends", "install", *packages]):
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)}: {(done.stderr or done.stdout)[-800:]}"
    finally:
        os.close(apt)
