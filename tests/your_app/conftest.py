"""Applications that nobody here wrote, as a person brings theirs: make new-app, make up, and nothing else."""

import functools
import json
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import diagnosis
import httpx
import pytest
from machines.conftest import host_of_machines  # noqa: F401 - a fixture

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ANSIBLE = ROOT / "infra/ansible"
STATES = Path(os.environ.get("PERGOLA_STATE") or ROOT / ".pergola").absolute()


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Each source, unpacked; pip refuses one whose hash is another."""
    archives, folder = tmp_path_factory.mktemp("archives"), tmp_path_factory.mktemp("sources")
    names = [line.split("==")[0] for line in (HERE / "sources.txt").read_text().splitlines() if "==" in line]
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    fetch += ["--no-binary", ",".join(names), "--requirement", HERE / "sources.txt", "--dest", archives]
    subprocess.run(fetch, check=True)
    unpacked = {}
    for name in names:
        (archive,) = archives.glob(f"{name.replace('-', '_')}-*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder / name, filter="data")
        (unpacked[name],) = (folder / name).iterdir()
    return unpacked


class Replica:
    """An environment that new-app wrote, with a state directory of the tests' own."""

    def __init__(self, name, states):
        self.name = name
        self.inventory = ANSIBLE / "inventory" / name
        images = os.environ.get("PERGOLA_IMAGES") or str(STATES / "images")
        self.environment = os.environ | {
            "PERGOLA_STATE": str(states),
            "PERGOLA_IMAGES": images,
            "ENV": name,
        }

    def make(self, *arguments):
        command = ["make", "--no-print-directory", *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout

    def settings(self):
        shown = subprocess.run(
            [sys.executable, "-m", "pergola", "settings", self.name],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(shown.stdout)["app"]

    def run(self, *command):
        login = [sys.executable, "-m", "pergola", "ssh", self.name, "web", *command]
        done = subprocess.run(login, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def brought(request, sources, tmp_path_factory):
    """The application that the test file names, on a replica of its own."""
    request.getfixturevalue("host_of_machines")
    wanted = request.module.APPLICATION
    source = sources[wanted["source"]]
    for name, text in wanted.get("files", {}).items():
        (source / name).write_text(text)
    replica = Replica(f"made_by_test_{wanted['name']}_{os.getpid()}", tmp_path_factory.mktemp("states"))
    try:
        said = replica.make("new-app", f"NAME={replica.name}", f"SOURCE={source}", *wanted["answers"])
        replica.make("up")
        known = replica.settings()
        tls = ssl.create_default_context(cafile=known["secrets_authority_certificate"])
        with httpx.Client(
            base_url=known["site_url"], verify=tls, timeout=15, follow_redirects=True
        ) as client:
            yield SimpleNamespace(said=said, settings=known, client=client, tls=tls, replica=replica)
    finally:
        if replica.inventory.exists():
            replica.make("down")
            shutil.rmtree(replica.inventory)


@pytest.fixture
def evidence(request, brought):
    """When a test fails, what the machine shows and what the application wrote."""
    request.node.evidence = [
        functools.partial(diagnosis.ask, brought.settings, time.time(), ["app-*", "nginx", "pgbouncer"])
    ]
