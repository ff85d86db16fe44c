"""Going back to a release that the host still holds; what is kept, and what is thrown away."""

import json
import shutil

import pytest
from infra.tools import ROOT, beside_the_slots, inventory_of, live_slot, play

pytestmark = [pytest.mark.disruptive, pytest.mark.hosts("web")]


def releases(host):
    return json.loads(host.check_output("appctl releases --json"))


def live(host):
    return next(one["id"] for one in releases(host) if one["live"])


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A copy of this checkout's application with a stylesheet of its own."""
    source = tmp_path_factory.mktemp("another")
    shutil.copytree(ROOT / "app", source / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "requirements").mkdir()
    shutil.copy(ROOT / "requirements/app.txt", source / "requirements/app.txt")
    (source / "app/core/static/core/another.css").write_text("body { color: teal }\n")
    return source


@pytest.fixture(scope="module")
def gone_over(servers, host, another):
    """The release that was live before the other one was deployed; afterwards it is again."""
    before = live(host)
    done = play(inventory_of(servers), "deploy", arguments=["-e", json.dumps({"app_source": str(another)})])
    assert done.returncode == 0, done.stdout
    assert live(host) != before
    yield before
    if live(host) != before:
        done = play(inventory_of(servers), "rollback", arguments=["-e", f"release={before}"])
        assert done.returncode == 0, done.stdout


def test_a_rollback_brings_back_all_of_the_release_before(servers, host, settings, gone_over):
    """Web, WebSockets, jobs and processes; and the files of both releases stay served."""
    home = settings["app_home"]
    assert [one["id"] for one in releases(host) if one["previous"]] == [gone_over]
    assert host.run(f"ls {home}/static/core/another.*.css").rc == 0
    style = host.check_output(
        f"ls {home}/releases/{gone_over}/static/core/site.*.css | xargs -n1 basename | head -1"
    )

    done = play(inventory_of(servers), "rollback")
    assert done.returncode == 0, done.stdout
    assert live(host) == gone_over
    for unit in [
        f"app-web@{live_slot(host, settings)}",
        *(f"app-{name}" for name in beside_the_slots(settings)),
    ]:
        # the way back waits for no job, so what runs beside the slots follows behind it
        host.check_output(
            f"timeout 60 sh -c 'until readlink /proc/$(systemctl show -P MainPID {unit})/cwd "
            f"| grep -q /releases/{gone_over}/; do sleep 0.2; done'"
        )
    assert host.run(f"ls {home}/static/core/another.*.css").rc == 0
    assert host.file(f"{home}/static/core/{style}").exists


def test_a_release_that_is_not_here_is_refused_and_nothing_moves(servers, host):
    before = live(host)
    done = play(inventory_of(servers), "rollback", arguments=["-e", "release=0123456789ab"])
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "has no release 0123456789ab to go back to" in said
    assert before in said
    assert live(host) == before


def test_what_was_refused_is_thrown_away_and_what_served_is_kept(servers, host, settings, gone_over):
    """Five that never worked do not push out the one to go back to, nor do their files stay."""
    home = settings["app_home"]
    refused = [f"{number:012}" for number in range(5)]
    for name in refused:
        host.check_output(f"mkdir -p {home}/releases/{name}/static {home}/static")
        host.check_output(f"echo test > {home}/releases/{name}/static/{name}.css")
        host.check_output(f"ln {home}/releases/{name}/static/{name}.css {home}/static/{name}.css")
        described = json.dumps({"id": name, "revision": "", "built": "2026-01-01T00:00:00"})
        host.check_output("echo %s > %s", described, f"{home}/releases/{name}/release.json")
    served = {one["id"] for one in releases(host) if one["deployed"]}
    assert gone_over in served
    removed = host.check_output("appctl prune %s", str(len(served))).splitlines()
    assert {f"removed {name}" for name in refused} <= set(removed)
    assert served <= {one["id"] for one in releases(host)}
    assert host.run(f"ls {home}/static/0000*").rc != 0
    assert host.run(f"ls {home}/static/core/another.*.css").rc == 0


def test_a_switch_that_was_cut_off_is_finished_by_the_next_deploy(servers, host, settings):
    """Between its two renames: the record names the new slot, nginx still follows the old link."""
    slot = live_slot(host, settings)
    other = next(name for name in settings["app_slots"] if name != slot)
    link = f"{settings['app_runtime_directory']}/live"
    host.check_output(f"ln -sfn {other} {link}.new && mv -T {link}.new {link}")
    done = play(inventory_of(servers), "deploy")
    assert done.returncode == 0, done.stdout
    assert host.check_output(f"readlink {link}") == slot
    assert host.service(f"app-web@{slot}.service").is_running
