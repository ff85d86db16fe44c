"""appctl restart: the live release starts again in the other slot. Under load: tests/recovery."""

import contextlib

import pytest
from infra.tools import live_slot

pytestmark = [pytest.mark.disruptive, pytest.mark.hosts("web")]


def other_slot(settings, slot):
    return next(one for one in settings["app_slots"] if one != slot)


def release(host, settings):
    return host.check_output("readlink -f %s/live", settings["app_home"])


def test_the_same_release_serves_from_the_other_slot(host, settings):
    slot, before = live_slot(host, settings), release(host, settings)
    host.check_output("appctl restart")
    assert live_slot(host, settings) == other_slot(settings, slot)
    assert release(host, settings) == before
    assert not host.service(f"app-web@{slot}.service").is_running
    assert host.run("appctl verify live").rc == 0


def test_it_leaves_a_deploy_alone_and_says_whose_it_is(host, settings):
    slot = live_slot(host, settings)
    lock = f"{settings['app_runtime_directory']}/deploy.lock"
    done = host.run(f"flock {lock} sh -c 'echo deploy by mina@laptop > {lock}; appctl restart'")
    assert done.rc == 1
    assert "a deploy runs: deploy by mina@laptop. Run appctl restart after it" in done.stderr
    assert live_slot(host, settings) == slot


@contextlib.contextmanager
def cannot_start(host, unit):
    """By a drop-in that is gone after a boot at the latest."""
    directory = f"/run/systemd/system/{unit}.d"
    host.check_output(
        f"mkdir -p {directory}; printf '[Service]\\nExecStartPre=/bin/false\\n' > {directory}/broken.conf;"
        " systemctl daemon-reload"
    )
    try:
        yield
    finally:
        host.check_output(f"rm -r {directory}; systemctl daemon-reload")


def test_a_slot_that_does_not_start_takes_no_traffic(host, settings):
    slot = live_slot(host, settings)
    other = other_slot(settings, slot)
    with cannot_start(host, f"app-web@{other}.service"):
        done = host.run("appctl restart")
    assert done.rc == 1
    assert done.stderr.startswith("appctl restart: systemctl restart: ")
    assert f"{slot} still serves" in done.stderr
    assert live_slot(host, settings) == slot
    assert host.run("appctl verify live").rc == 0
    assert host.run("systemctl --failed --legend=no --plain").stdout == ""
