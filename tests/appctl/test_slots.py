"""Slots start, stop and get a release; the traffic moves by two links, one after the other."""

import json

import pytest

UNITS = "app-web@{0}.socket app-web@{0}.service app-websocket@{0}-1.service app-websocket@{0}-2.service"
BLUE, GREEN = UNITS.format("blue"), UNITS.format("green")


@pytest.fixture
def live(host):
    """Release one is live in blue."""
    host.release("one")
    host.release("two")
    (host.home / "slots/blue").symlink_to("../releases/one")
    (host.home / "live").symlink_to("slots/blue")
    (host.directory / "run/live").symlink_to("blue")
    (host.home / "history").write_text("2026-11-01T10:00:00Z deploy one\n")
    return host


def link(path):
    return str(path.readlink())


def test_a_slot_starts_now_and_at_boot(live):
    done = live.run("slot", "start", "green")
    assert (done.returncode, done.stdout) == (0, "started green\n")
    assert live.asked() == [f"--quiet --no-reload enable {GREEN}", f"restart {GREEN}"]


def test_a_hosts_first_slot_is_known_to_systemd(host):
    host.run("slot", "start", "blue")
    assert host.asked()[1] == "daemon-reload"


def test_a_slot_that_runs_is_stopped_and_said_so(live):
    done = live.run("slot", "stop", "green")
    assert (done.returncode, done.stdout) == (0, "stopped green\n")
    assert live.asked()[1:] == [
        f"--quiet --no-reload disable {GREEN}",
        f"stop {GREEN}",
        f"--quiet reset-failed {GREEN}",
        "daemon-reload",
    ]
    live.run("slot", "stop", "green", "--no-block")
    assert f"stop --no-block {GREEN}" in live.asked()


def test_where_nothing_is_to_stop_nothing_is_said(live):
    live.answers(
        **{
            "--quiet is-enabled*": (1, ""),
            "list-units*": (0, f"{GREEN.split()[1]} loaded inactive dead Application\n"),
        }
    )
    done = live.run("slot", "stop", "green")
    assert (done.returncode, done.stdout) == (0, "")
    assert not any("disable" in asked for asked in live.asked())


def test_a_host_of_workers_alone_has_nothing_to_start(live):
    live.write(serves_web=False)
    assert live.run("slot", "start", "green").returncode == 0
    assert live.asked() == []


def test_what_systemctl_refuses_is_said(live):
    live.answers(**{"restart *": (1, "Job for app-web@green.service failed\n")})
    done = live.run("slot", "start", "green")
    assert done.returncode == 1
    assert done.stderr == "appctl slot: systemctl restart: Job for app-web@green.service failed\n"


def test_the_idle_slot_gets_a_whole_release(live):
    assert live.run("slot", "assign", "green", "two").stdout == "green has release two\n"
    assert link(live.home / "slots/green") == "../releases/two"
    assert "blue has the traffic" in live.run("slot", "assign", "blue", "two").stderr
    (live.home / "releases/two/release.json").unlink()
    assert "no whole release two" in live.run("slot", "assign", "green", "two").stderr


@pytest.mark.parametrize("kind", ["deploy", "rollback"])
def test_the_traffic_moves_with_a_record(live, kind):
    live.run("slot", "assign", "green", "two")
    done = live.run("switch", "green", *(["--rollback"] if kind == "rollback" else []))
    assert done.stdout == "green has the traffic\n"
    assert (link(live.home / "live"), link(live.directory / "run/live")) == ("slots/green", "green")
    assert (live.home / "history").read_text().splitlines()[-1].split()[1:] == [kind, "two"]
    celery = [
        "stop app-worker.service app-beat.service",
        "start --no-block app-worker.service app-beat.service",
    ]
    assert live.asked() == (celery if kind == "deploy" else [])


def test_celery_starts_again_if_the_switch_fails(live):
    (live.directory / "run/live").unlink()
    (live.directory / "run/live").mkdir()  # in the way of the rename
    (live.directory / "run/live/x").touch()
    assert live.run("switch", "green").returncode == 1
    assert live.asked()[-1] == "start --no-block app-worker.service app-beat.service"


def test_a_switch_that_was_cut_off_is_finished(live):
    (live.home / "live").unlink()
    (live.home / "live").symlink_to("slots/green")
    assert live.run("switch").stdout == "green has the traffic again\n"
    assert link(live.directory / "run/live") == "green"
    assert live.run("switch").stdout == ""


def test_a_history_that_was_cut_off_goes_on_in_a_line_of_its_own(live):
    (live.home / "history").write_text("2026-11-01T10:00:00Z dep")
    live.run("slot", "assign", "green", "two")
    live.run("switch", "green")
    assert len((live.home / "history").read_text().splitlines()) == 2


def test_what_does_not_run_the_live_release_is_restarted(live):
    live.answers(**{"show --property=MainPID*": (0, "0\n\n1\n\n0\n")})
    done = live.run("follow")
    units = ["app-worker.service", "app-beat.service", "app-upstreams.service"]
    assert done.stdout.splitlines() == [f"restarted {unit}" for unit in units]
    assert live.asked()[1:] == [f"restart {' '.join(units)}", "start app-count-days.timer"]


def test_the_status_is_for_people_and_for_programs(live):
    units = "app-web@blue.service loaded active running Application, slot blue\n"
    live.answers(
        **{"list-units*--type*": (0, units), "list-units*--state*": (0, "x.service loaded failed failed X\n")}
    )
    (live.directory / "maintenance").write_text("by ops@host\n")
    found = json.loads(live.run("status", "--json").stdout)
    assert (found["slot"], found["release"]["id"], found["failed"]) == ("blue", "one", ["x.service"])
    lines = live.run("status").stdout.splitlines()
    assert lines[0].startswith("live: blue  one ")
    assert lines[1].endswith("by ops@host")
    assert lines[-2:] == ["  app-web@blue.service             active     running", "  FAILED x.service"]
