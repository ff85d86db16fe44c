"""The forced command of a pipeline's key lets one sentence through, and its pipelines are in order."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from house import ROOT

EXAMPLES = ROOT / "docs/examples"
GATE = EXAMPLES / "pergola-deploy-gate"
# what a deploy would be: it says what it was told, and as a deploy does, takes its time
MAKEFILE = """\
deploy:
\t@printf '<%s> ' "$(ENV)" $(ARGS) | tee -a asked; echo
\t@[ ! -e slow ] || { touch began; while [ -e slow ]; do sleep 0.05; done; }
\t@[ ! -e bad ]
\t@touch ended
"""


class Host:
    def __init__(self, folder):
        self.folder = folder
        (folder / "Makefile").write_text(MAKEFILE)

    def start(self, asked):
        environment = {"PATH": os.environ["PATH"], "SSH_CONNECTION": "192.0.2.7 50000 192.0.2.1 22"}
        if asked is not None:
            environment["SSH_ORIGINAL_COMMAND"] = asked
        return subprocess.Popen(
            [GATE, self.folder, "production"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, asked):
        process = self.start(asked)
        said, complaint = process.communicate(timeout=30)
        return process.returncode, said, complaint

    def has(self, name):
        return (self.folder / name).exists()

    def wait_for(self, name):
        deadline = time.monotonic() + 30
        while not self.has(name):
            assert time.monotonic() < deadline, f"waited for {name}"
            time.sleep(0.02)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.mark.parametrize("tag", ["v1.2", "v1.2.3", "v2026.11.20", "v1.2.3-rc.1", "v1.2.3-beta2"])
def test_a_tag_is_deployed_to_the_environment_of_the_key(host, tag):
    code, said, _ = host.ask(f"deploy {tag}")
    assert code == 0
    assert said == f"<production> <-e> <app_revision={tag}> \n"
    logs = list((host.folder / ".pergola/production/deploys").iterdir())
    assert [log.read_text() for log in logs] == [said]


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "",
        "deploy",
        "deploy ",
        "bash",
        "rollback",
        "Deploy v1.2.3",
        "deploy main",
        "deploy HEAD",
        "deploy 1.2.3",
        "deploy v1",
        "deploy v1.2.3-",
        "deploy v1.2.3.4.5",
        "deploy v1..2",
        "deploy V1.2.3",
        "deploy  v1.2.3",
        "deploy v1.2.3 ",
        "deploy v1.2.3 ENV=staging",
        "deploy v1.2.3 -e app_source=https://elsewhere.example",
        "deploy v1.2.3;id",
        "deploy v1.2.3\nbash",
        "bash\ndeploy v1.2.3",
        "deploy v1.2.3\n",
        "deploy $(id)",
        "deploy `id`",
        "deploy v1.2.3'",
        "deploy -v1.2.3",
        "deploy ../v1.2.3",
        "deploy v1.2.3/../../main",
        "deploy v１.２.３",  # noqa: RUF001  digits, but not ours
        "deploy v1.2.3\x00x".replace("\x00", "\x01"),
        "deploy v" + "1" * 5000 + ".2",
    ],
)
def test_anything_else_is_refused_in_one_line(host, asked):
    code, said, complaint = host.ask(asked)
    assert code == 64
    assert said == ""
    assert complaint.startswith("pergola-deploy-gate: ")
    assert complaint.count("\n") == 1
    assert not host.has("asked")


def test_a_deploy_that_fails_fails_the_job(host):
    (host.folder / "bad").touch()
    code, said, _ = host.ask("deploy v1.2.3")
    assert code == 2
    assert "<app_revision=v1.2.3>" in said


def test_a_deploy_ends_well_after_its_job_is_gone(host):
    (host.folder / "slow").touch()
    process = host.start("deploy v1.2.3")
    host.wait_for("began")
    # what sshd does when the connection breaks
    process.stdout.close()
    process.stderr.close()
    os.killpg(process.pid, signal.SIGHUP)
    (host.folder / "slow").unlink()
    host.wait_for("ended")
    assert process.wait(30) is not None


def scripts():
    actions = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    yield "github-actions", actions["jobs"]["deploy"]["steps"][-1]["run"]
    gitlab = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())
    yield "gitlab-ci", "\n".join(gitlab["deploy"]["script"])


@pytest.mark.parametrize(("name", "script"), list(scripts()), ids=lambda value: value[:14])
def test_a_pipeline_says_to_a_known_host_what_the_gate_lets_through(name, script, tmp_path):
    """Run for real, with programs in ssh's and apt's place that tell what they were called with."""
    checker = Path(sys.executable).with_name("shellcheck")
    subprocess.run([checker, "--shell=bash", "-"], input=script, text=True, check=True)
    told = tmp_path / "told"
    for program in ("ssh", "apt-get"):
        fake = tmp_path / "bin" / program
        fake.parent.mkdir(exist_ok=True)
        lines = ["#!/bin/sh", f'[ "${{0##*/}}" = apt-get ] || printf "%s\\n" "$@" > {shlex.quote(str(told))}']
        fake.write_text("\n".join(lines) + "\n")
        fake.chmod(0o755)
    (tmp_path / "secret").write_text("the key\n")
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(tmp_path),
        "DEPLOY_KEY": str(tmp_path / "secret") if name == "gitlab-ci" else "the key",
        "DEPLOY_HOST": "control.example.org",
        "DEPLOY_HOST_KEY": "ssh-ed25519 AAAA",
        "TAG": "v1.2.3",
        "CI_COMMIT_TAG": "v1.2.3",
    }
    subprocess.run(["bash", "-e", "-c", script], env=environment, cwd=tmp_path, check=True)
    words = told.read_text().splitlines()
    assert words[-2:] == ["deploy@control.example.org", "deploy v1.2.3"]
    assert "StrictHostKeyChecking=yes" in words
    assert (tmp_path / "known_hosts").read_text() == "control.example.org ssh-ed25519 AAAA\n"
    assert (tmp_path / "key").read_text() == "the key\n"
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
