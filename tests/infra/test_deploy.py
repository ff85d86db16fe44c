"""How a release is built, named, and followed; what one that cannot work does under load: tests/faults."""

import contextlib
import json
import re
import shutil
import ssl
import subprocess

import httpx
import pytest
from infra.tools import BIN, ROOT, beside_the_slots, changed, inventory_of, live_slot, play, stopped

pytestmark = [pytest.mark.disruptive, pytest.mark.hosts("web")]


@pytest.fixture
def source(tmp_path):
    """A copy of this checkout's application, to break."""
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "requirements/app.txt", tmp_path / "requirements/app.txt")
    return tmp_path


@pytest.fixture
def refused(servers, host, settings, source):
    """Deploy the source, which must fail and leave what runs as it was; returns what was said."""

    def deploy():
        before = live_slot(host, settings)
        idle = next(slot for slot in settings["app_slots"] if slot != before)
        told = {"app_source": str(source), "deploy_ready_seconds": 3}
        done = play(inventory_of(servers), "deploy", arguments=["-e", json.dumps(told)])
        assert done.returncode != 0, done.stdout
        assert live_slot(host, settings) == before
        assert not host.service(f"app-web@{idle}.service").is_running
        answer = httpx.get(
            f"{settings['site_url']}{settings['app_health_path']}",
            verify=ssl.create_default_context(cafile=settings["secrets_authority_certificate"]),
        )
        assert answer.status_code == 200
        return " ".join(done.stdout.split())

    return deploy


def locked(requirement):
    """A requirement as a lock holds it, with its hashes."""
    command = [BIN / "uv", "pip", "compile", "-q", "--no-deps", "--generate-hashes", "--no-header", "-"]
    done = subprocess.run(command, input=requirement, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_pin_that_the_runtime_cannot_work_with_is_refused_with_both_named(source, refused):
    lock = source / "requirements/app.txt"
    other = re.sub(r"^uvicorn==.*?(?=^\S)", locked("uvicorn==0.34.0"), lock.read_text(), flags=re.M | re.S)
    lock.write_text(other)
    said = refused()
    assert re.search(r"pergola-runtime.{0,40}requires.{0,20}uvicorn>=", said), said
    assert "0.34.0" in said


def test_a_release_that_cannot_have_the_handler_that_is_set_is_refused(host, settings, source, refused):
    """The sample's own check would refuse it before, so the release does without."""
    with (source / "app/config/settings.py").open("a") as file:
        file.write('DATABASES["default"]["CONN_MAX_AGE"] = 600\n')
        file.write('SILENCED_SYSTEM_CHECKS.append("pergola.E001")\n')
    environment = settings["app_env_file"]
    with changed(host, environment, f"sed -i 's/^PERGOLA_HANDLER=.*/PERGOLA_HANDLER=lean/' {environment}"):
        said = refused()
    assert "app_handler is lean, but DATABASES" in said
    assert "CONN_MAX_AGE=600" in said


def test_what_runs_beside_the_slots_follows_after_a_deploy_that_was_cut_off(servers, host, settings):
    """Behind its switch: the release is live already, and the next deploy of it has this left to do."""
    units = [f"app-{name}.service" for name in beside_the_slots(settings)]
    with contextlib.ExitStack() as stack:
        for unit in units:
            stack.enter_context(stopped(host, unit))
        done = play(inventory_of(servers), "deploy")
        assert done.returncode == 0, done.stdout
        assert [unit for unit in units if not host.service(unit).is_running] == []


def test_a_git_url_is_the_same_release_as_its_checkout(servers, settings, source, tmp_path):
    """Named by content: the live release, packed again from a repository, is no new one."""
    subprocess.run(["git", "init", "-q", source], check=True)
    subprocess.run(["git", "-C", source, "add", "."], check=True)
    person = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", source, *person, "commit", "-qm", "A release"], check=True)
    told = {"app_source": f"file://{source}", "app_revision": "HEAD"}
    done = play(inventory_of(servers), "deploy", arguments=["-e", json.dumps(told)])
    assert done.returncode == 0, done.stdout
    assert "changed: [" not in done.stdout.partition("TASK [deploy : Read the slots")[2], done.stdout
