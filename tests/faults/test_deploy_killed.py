"""A deploy that is cut off, wherever: the site serves one whole release, and the next deploy ends well."""

import contextlib
import os
import random
import re
import signal
import threading
import time

import httpx
import pytest
from faults.releases import PHASES, deploy
from faults.replica import well
from machines.environment import STATES, Environment
from waiting import wait_until

pytestmark = [pytest.mark.disruptive, pytest.mark.usefixtures("left_well")]

# the phase that could leave two releases serving; the others take minutes
CUT_OFF = [phase if phase == "switch" else pytest.param(phase, marks=pytest.mark.full) for phase in PHASES]


class Visitor:
    """Asks all the time which release serves."""

    def __init__(self, replica):
        self.replica, self.answers, self.stopping = replica, [], threading.Event()
        self.thread = threading.Thread(target=self.visit)

    def visit(self):
        while not self.stopping.wait(0.1):
            try:
                answer = self.replica.get("/livez")
                said = answer.json().get("release") if answer.status_code == 200 else answer.status_code
            except (httpx.HTTPError, OSError, ValueError) as error:
                said = repr(error)
            self.answers.append((time.time(), said))

    def served(self):
        """What was heard, each once, in the order in which it came first."""
        return list(dict.fromkeys(said for _, said in self.answers))


@contextlib.contextmanager
def visiting(replica):
    visitor = Visitor(replica)
    visitor.thread.start()
    try:
        yield visitor
    finally:
        visitor.stopping.set()
        visitor.thread.join()


def test_the_second_of_two_deploys_is_refused_and_changes_nothing(replica, make_source):
    """That the lock goes with a killed deploy, the tests below prove."""
    source = make_source("first of two")
    first = deploy(replica, source)
    assert first.reach("build"), first.text
    before = replica.look()["live"]
    second = deploy(replica, make_source("second of two")).wait()
    assert second.process.returncode != 0, second.text
    said = r"is locked: deploy by \S+@\S+ since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.search(said, second.said), second.text
    assert not second.phases & set(PHASES), second.text
    assert first.process.poll() is None, "the first ended meanwhile, so that nothing is proved"
    assert replica.look()["live"] == before
    first.works()
    assert replica.served() == source.name
    well(replica)


@pytest.mark.parametrize("phase", CUT_OFF)
def test_a_deploy_that_is_killed_is_finished_by_the_next(replica, make_source, phase):
    before = replica.served()
    source = make_source(f"killed in {phase}")
    with visiting(replica) as visitor:
        cut = deploy(replica, source)
        assert cut.reach(phase), f"{phase} did not begin:\n{cut.text}"
        time.sleep(random.uniform(0, 1.5))  # anywhere in it, or a little later
        cut.kill()
        heard = len(visitor.answers)
        wait_until(lambda: len(visitor.answers) > heard + 10, "the site to answer")
        seen = replica.look()
        # which the cut may have left behind each other, but each leads to a release that runs
        slots = {seen["record"], seen["traffic"]}
        assert {f"app-web@{slot}.service" for slot in slots} <= set(seen["units"]), (seen, cut.text)
        again = deploy(replica, source).works()
    assert set(visitor.served()) <= {before, source.name}, (visitor.served(), cut.text, again.text)
    assert replica.served() == source.name
    well(replica)


@pytest.mark.full
@pytest.mark.parametrize("phase", ["switch", "drain"])
def test_a_power_cut_in_a_deploy_is_mended_by_the_next(replica, make_source, phase):
    before = replica.served()
    source = make_source(f"power cut in {phase}")
    machine = Environment(STATES)
    cut = deploy(replica, source)
    assert cut.reach(phase), f"{phase} did not begin:\n{cut.text}"
    time.sleep(random.uniform(0, 1.5))
    os.kill(machine.init(), signal.SIGKILL)
    cut.kill()
    machine.works("up")

    def answers():
        with contextlib.suppress(httpx.HTTPError, OSError):
            return replica.get(replica.settings["app_health_path"]).status_code == 200

    wait_until(answers, "the site to answer after the power came back")
    # what nobody switched to does not come back as the live one
    assert replica.served() in (before, source.name)
    seen = replica.look()
    assert seen["record"] == seen["traffic"], seen
    deploy(replica, source).works()
    assert replica.served() == source.name
    well(replica)
