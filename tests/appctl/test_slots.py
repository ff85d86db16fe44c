"""Slots get a release, start and stop; the traffic moves by two links, one after the other."""

import json
import os

import pytest

from .test_verify import serving

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
    live.run("slot", "prepare", "green", "two")
    (live.home / "releases/two/static/site.1a2b3c4d5e6f.css").touch()
    live.answers(
        **{"journalctl*handler serves*": (0, "pergola_runtime's handler serves\n"), "show*": (0, "123\n")}
    )
    before = len(live.asked())
    with serving(live, "green"):
        done = live.run("slot", "start", "green")
    assert (done.returncode, done.stdout) == (0, "started green\npergola_runtime's handler serves\n")
    assert live.asked()[before : before + 2] == [f"--quiet --no-reload enable {GREEN}", f"restart {GREEN}"]
    assert [path.name for path in (live.home / "static").iterdir()] == ["site.1a2b3c4d5e6f.css"]


def test_a_hosts_first_slot_is_known_to_systemd(host):
    host.release("one")
    host.run("slot", "prepare", "blue", "one")
    before = len(host.asked())
    with serving(host, "blue"):
        assert host.run("slot", "start", "blue").returncode == 0
    assert host.asked()[before + 1] == "daemon-reload"


def test_a_slot_that_does_not_serve_is_told_with_its_journal(live):
    live.run("slot", "prepare", "green", "two")
    live.answers(**{"journalctl*": (0, "ModuleNotFoundError: no module named shop\n")})
    with serving(live, "green", status=503):
        done = live.run("slot", "start", "green", "--ready", "0.3")
    assert done.returncode == 1
    assert "did not answer /readyz with 200, but with 503" in done.stderr
    assert done.stderr.endswith("The journal's last lines:\nModuleNotFoundError: no module named shop\n")


def test_a_slot_that_runs_is_stopped_and_said_so(live):
    done = live.run("slot", "stop", "green")
    assert (done.returncode, done.stdout) == (0, "stopped green\n")
    assert live.asked()[1:] == [
        f"--quiet --no-reload disable {GREEN}",
        f"stop {GREEN}",
        f"--quiet reset-failed {GREEN}",
        "daemon-reload",
    ]
    live.run("slot", "stop", "idle", "--no-block")
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
    live.run("slot", "prepare", "green", "two")
    live.answers(**{"restart *": (1, "Job for app-web@green.service failed\n")})
    done = live.run("slot", "start", "green")
    assert done.returncode == 1
    assert done.stderr.startswith("appctl slot: systemctl restart: Job for app-web@green.service failed\n")


def test_an_idle_slot_gets_a_complete_release(live):
    assert live.run("slot", "prepare", "green", "two").stdout == "stopped green\ngreen has release two\n"
    assert link(live.home / "slots/green") == "../releases/two"
    assert "blue has the traffic" in live.run("slot", "prepare", "blue", "two").stderr
    (live.home / "releases/two/release.json").unlink()
    assert "no complete release two" in live.run("slot", "prepare", "green", "two").stderr


def test_a_release_without_the_units_server_is_refused(live):
    live.write(http_server="granian")
    done = live.run("slot", "prepare", "green", "two")
    assert done.returncode == 1
    assert "release two has no granian" in done.stderr
    assert live.asked() == []
    live.write(serves_web=False)
    assert live.run("slot", "prepare", "green", "two").returncode == 0


def test_slots_are_listed_with_their_releases(live, host):
    live.run("slot", "prepare", "green", "two")
    found = json.loads(live.run("slot", "list", "--json").stdout)
    assert found == {"live": "blue", "live_release": "one", "idle": "green", "idle_release": "two"}
    (live.home / "live").unlink()
    assert (
        live.run("slot", "list").stdout == "live: none\nlive_release: none\nidle: blue\nidle_release: one\n"
    )


@pytest.mark.parametrize("kind", ["deploy", "rollback"])
def test_the_traffic_moves_with_a_record(live, kind):
    live.run("slot", "prepare", "green", "two")
    before = len(live.asked())
    with serving(live, "green"):
        done = live.run("switch", "green", *(["--rollback"] if kind == "rollback" else []))
    assert done.stdout == "green has the traffic\n"
    assert (link(live.home / "live"), link(live.directory / "run/live")) == ("slots/green", "green")
    assert (live.home / "history").read_text().splitlines()[-1].split()[1:] == [kind, "two"]
    celery = [
        "stop app-worker.service app-beat.service",
        "start --no-block app-worker.service app-beat.service",
    ]
    assert live.asked()[before:] == (celery if kind == "deploy" else [])


def test_the_traffic_goes_back_from_a_slot_that_does_not_answer(live):
    live.answers(**{"show --property=MainPID*": (0, "0\n\n1\n\n0\n")})
    live.run("slot", "prepare", "green", "two")
    with serving(live, "green", afterwards=500):
        done = live.run("switch", "green", "--ready", "0.3")
    assert done.returncode == 1
    assert done.stderr.endswith("the traffic is back on blue\n")
    assert live.asked()[-1] == "restart --no-block app-worker.service app-beat.service app-upstreams.service"
    assert (link(live.home / "live"), link(live.directory / "run/live")) == ("slots/blue", "blue")
    kinds = [line.split()[1:] for line in (live.home / "history").read_text().splitlines()]
    assert kinds == [["deploy", "one"], ["deploy", "two"], ["rollback", "one"]]


def test_a_slot_that_does_not_answer_gets_no_traffic(live):
    live.run("slot", "prepare", "green", "two")
    before = len(live.asked())
    with serving(live, "green", status=500):
        assert live.run("switch", "green", "--ready", "0.3").returncode == 1
    assert (link(live.home / "live"), link(live.directory / "run/live")) == ("slots/blue", "blue")
    assert live.asked()[before:] == []


def test_a_slot_without_a_release_gets_no_traffic(live):
    live.write(serves_web=False)
    assert "green has no complete release" in live.run("switch", "green").stderr
    assert link(live.home / "live") == "slots/blue"


def test_a_first_release_that_fails_at_the_switch_is_not_live(host):
    host.release("one")
    host.run("slot", "prepare", "blue", "one")
    with serving(host, "blue", afterwards=500):
        assert host.run("switch", "blue", "--ready", "0.3").returncode == 1
    assert json.loads(host.run("slot", "list", "--json").stdout)["live"] == ""
    assert not (host.directory / "run/live").is_symlink()


def test_a_switch_that_was_cut_off_is_finished(live):
    (live.home / "live").unlink()
    (live.home / "live").symlink_to("slots/green")
    assert live.run("switch").stdout == "green has the traffic, after an interrupted switch\n"
    assert link(live.directory / "run/live") == "green"
    assert live.run("switch").stdout == ""


def test_a_history_that_was_cut_off_goes_on_in_a_line_of_its_own(live):
    (live.home / "history").write_text("2026-11-01T10:00:00Z dep")
    live.run("slot", "prepare", "green", "two")
    with serving(live, "green"):
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


def test_websockets_from_before_maintenance_mode_are_disconnected(live):
    assert live.run("disconnect").stdout == ""
    flag = live.directory / "maintenance"
    flag.touch()
    os.utime(flag, (1000, 1000))
    live.answers(**{"show --timestamp=unix*": (0, "@900\n\n@1000\n")})
    done = live.run("disconnect")
    assert done.stdout == "restarted app-websocket@blue-1.service\n"
    assert live.asked()[-1] == "try-restart app-websocket@blue-1.service"
    live.answers(**{"show --timestamp=unix*": (0, "@1001\n\n\n")})
    assert live.run("disconnect").stdout == ""


def test_a_rollback_leaves_timers_as_they_are(live):
    live.answers(**{"show *": (0, "0\n\n0\n\n0\n")})
    assert live.run("follow", "--rollback").returncode == 0
    assert not [asked for asked in live.asked() if ".timer" in asked]
    assert live.run("follow").returncode == 0
    assert live.asked()[-1] == "start app-count-days.timer"


def test_a_link_that_cannot_be_moved_sends_the_traffic_back(live):
    """Such as by a full or read-only file system. Celery, which stopped for the switch, starts again."""
    live.answers(**{"show --property=MainPID*": (0, "0\n\n1\n\n0\n")})
    live.run("slot", "prepare", "green", "two")
    before = len(live.asked())
    (live.directory / "run/live.new").mkdir()
    with serving(live, "green"):
        assert live.run("switch", "green").returncode == 1
    assert (link(live.home / "live"), link(live.directory / "run/live")) == ("slots/blue", "blue")
    assert live.asked()[before + 1] == "start --no-block app-worker.service app-beat.service"
