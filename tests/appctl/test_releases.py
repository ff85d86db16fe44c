"""Which releases are here, where a rollback goes, and what is removed."""

import json

import pytest

HISTORY = """\
2026-11-01T10:00:00Z deploy one
2026-11-02T10:00:00Z deploy two
2026-11-03T10:00:00Z deploy three
"""


@pytest.fixture
def deployed(host):
    """Three releases were deployed, one was refused; the last one is live in green."""
    for name in ("one", "two", "three", "refused"):
        host.release(name)
    (host.home / "slots/blue").symlink_to("../releases/two")
    (host.home / "slots/green").symlink_to("../releases/three")
    (host.home / "live").symlink_to("slots/green")
    (host.home / "history").write_text(HISTORY)
    return host


def listed(host):
    return {one["id"]: one for one in json.loads(host.run("releases", "--json").stdout)}


def marked(host, mark):
    return [name for name, one in listed(host).items() if one[mark]]


def test_they_are_listed_oldest_deploy_first(deployed):
    assert [*listed(deployed)] == ["refused", "one", "two", "three"]
    assert (marked(deployed, "live"), marked(deployed, "previous")) == (["three"], ["two"])
    assert listed(deployed)["one"]["deployed"] == "2026-11-01T10:00:00Z"
    lines = deployed.run("releases").stdout.splitlines()
    assert lines[0].endswith("deployed never, it was refused")
    assert lines[-1].endswith("deployed 2026-11-03T10:00:00Z  live")


def test_after_a_rollback_the_previous_one_is_the_one_before(deployed):
    with (deployed.home / "history").open("a") as file:
        file.write("2026-11-04T10:00:00Z rollback two\n")
    (deployed.home / "live").unlink()
    (deployed.home / "live").symlink_to("slots/blue")
    assert (marked(deployed, "live"), marked(deployed, "previous")) == (["two"], ["one"])


@pytest.mark.parametrize("cut", ["2026-11-03T10:00:00Z dep", "", "2026-11-03T1"])
def test_a_history_that_a_full_disk_cut_still_tells_what_is_live(deployed, cut):
    (deployed.home / "history").write_text(HISTORY.rpartition("2026-11-03")[0] + cut)
    assert (marked(deployed, "live"), marked(deployed, "previous")) == (["three"], ["two"])


def test_the_oldest_are_removed_but_for_those_in_slots(deployed):
    static = deployed.home / "static"
    (static / "css").mkdir()
    for name in ("css/old.css", "css/new.css"):
        (static / name).touch()
    (deployed.home / "releases/three/static/css").mkdir()
    (deployed.home / "releases/three/static/css/new.css").touch()
    assert deployed.run("prune", "1").stdout.splitlines() == ["removed one", "removed refused"]
    assert sorted(path.name for path in (deployed.home / "releases").iterdir()) == ["three", "two"]
    assert [path.name for path in static.rglob("*.css")] == ["new.css"]
    assert deployed.run("prune", "1").stdout == ""
