"""A host in a temporary directory: its home, its sockets, appctl.json, and a systemctl that answers.

The systemctl keeps what it was asked in a file, and takes its answers from another one.
"""

import grp
import json
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "infra/usr/local/lib/pergola"
sys.path.insert(0, str(LIBRARY))

# also under the names of other programs
SYSTEMCTL = """\
#!{python}
import fnmatch, json, pathlib, sys
here = pathlib.Path(__file__).parent
program = pathlib.Path(sys.argv[0]).name
asked = " ".join(([] if program == "systemctl" else [program]) + sys.argv[1:])
with (here / "asked").open("a") as file:
    file.write(asked + "\\n")
for pattern, (status, text) in json.loads((here / "answers").read_text()).items():
    if fnmatch.fnmatch(asked, pattern):
        sys.stdout.write(text)
        sys.exit(status)
"""


@dataclass
class Host:
    directory: Path
    settings: dict

    @property
    def home(self):
        return Path(self.settings["home"])

    @property
    def file(self):
        return self.directory / "appctl.json"

    def write(self, **settings):
        self.settings |= settings
        self.file.write_text(json.dumps(self.settings))

    def program(self, name):
        path = self.directory / "bin" / name
        path.write_text(SYSTEMCTL.format(python=sys.executable))
        path.chmod(0o755)

    def answers(self, **patterns):
        """What systemctl answers, by a pattern of its arguments: (exit status, standard output)"""
        (self.directory / "bin/answers").write_text(json.dumps(patterns))

    def asked(self):
        path = self.directory / "bin/asked"
        return path.read_text().splitlines() if path.exists() else []

    def release(self, name, built="2026-11-30T10:00:00+00:00"):
        directory = self.home / "releases" / name
        (directory / "venv/bin").mkdir(parents=True)
        (directory / "venv/bin/gunicorn").touch()
        (directory / "static").mkdir()
        facts = {"id": name, "revision": "r" * 40, "packages": "p", "built": built}
        (directory / "release.json").write_text(json.dumps(facts))
        return directory

    def run(self, *arguments, **options):
        environment = os.environ | {
            "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(LIBRARY),
        }
        command = [sys.executable, "-m", "appctl", "--config", self.file, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, **options
        )


@pytest.fixture
def host(tmp_path):
    for name in ("srv/releases", "srv/slots", "srv/static", "run/blue", "run/green", "bin", "cache"):
        (tmp_path / name).mkdir(parents=True)
    made = Host(tmp_path, {})
    made.write(
        home=str(tmp_path / "srv"),
        runtime_directory=str(tmp_path / "run"),
        package_cache=str(tmp_path / "cache"),
        maintenance_flag=str(tmp_path / "maintenance"),
        user=pwd.getpwuid(os.geteuid()).pw_name,
        group=grp.getgrgid(os.getegid()).gr_name,
        directory="app",
        slots=["blue", "green"],
        serves_web=True,
        http_server="gunicorn",
        websocket_processes=2,
        celery_parts=["worker", "beat"],
        processes=["upstreams"],
        timers=["count-days"],
        host_name="app.example.org",
        health_path="/readyz",
        manage=["python", "manage.py"],
        python_index="",
    )
    made.program("systemctl")
    made.program("journalctl")
    made.answers()
    return made
