"""Deploys, rollbacks and broken releases while people use the site: nobody notices.

One load runs through all of it, from the first test to the last, which says what was lost. The tests here are
one story, and run in this order.
"""

import re
import ssl
import time
import uuid

import httpx
import pytest
from faults.releases import BROKEN, LONG, ROUNDS, deploy, rollback
from faults.replica import well
from load.running import running
from waiting import wait_until

pytestmark = pytest.mark.disruptive

# a round alone is CI's, which takes one kind of each way to fail
KINDS = (
    BROKEN if ROUNDS > 1 else ("cannot be imported", "never ready", "migration fails", "dies after its start")
)


@pytest.fixture(scope="module")
def plays():
    """All that was done to the releases."""
    return []


@pytest.fixture(scope="module")
def long_jobs():
    return []


@pytest.fixture(scope="module")
def load(replica, left_well, addresses, users, make_source, plays, tmp_path_factory):
    """The clients, at work."""
    if replica.served() is None:  # the worker that stops first must know long jobs
        plays.append(deploy(replica, make_source("first")).works())
    options = ["--url", replica.url, "--ca", replica.authority, "--seconds", 3600]
    options += ["--addresses", ",".join(addresses), "--users", ",".join(users), "--rooms", 10]
    # 100 of each, at a pace that leaves two cores something for a deploy; in CI other tests run meanwhile
    slower = 1 if ROUNDS > 1 else 2
    options += ["--pause", 4 * slower, "--message-pause", 10 * slower]
    # two that keep a job of six seconds running, and six whose jobs fail twice and are tried again
    options += ["--visitors", 8, "--job-kinds", "fetch,fetch,flaky"]
    with running(tmp_path_factory.mktemp("load"), *options) as clients:
        yield clients


class LongJob:
    """A job that works for longer than a stopping worker waits, ordered by a visitor of its own."""

    def __init__(self, replica):
        self.client = httpx.Client(
            base_url=replica.url,
            verify=ssl.create_default_context(cafile=replica.authority),
            headers={"Referer": f"{replica.url}/jobs/", "Origin": replica.url},
            timeout=30,
        )
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.client.get("/jobs/").text)[1]
        form = {"kind": "fetch", "text": "long", "key": str(uuid.uuid4()), "csrfmiddlewaretoken": token}
        answer = self.client.post("/jobs/start", data=form)
        assert answer.status_code == 302, answer.text
        self.path = re.search(r'"(/jobs/[0-9a-f-]{36})"', self.client.get("/jobs/").text)[1]
        self.began = None

    def seconds(self):
        """For how long its first attempt has been running; 0 while it waits for a worker."""
        if self.began is None and self.client.get(self.path).json()["attempts"]:
            self.began = time.monotonic()
        return time.monotonic() - self.began if self.began else 0

    def attempts(self):
        """Wait for its end: the job was done once, whatever number of attempts that took."""
        state = wait_until(self.finished, "the long job to end", 300)
        assert (state["status"], state["effects"]) == ("done", 1), state
        return state["attempts"]

    def finished(self):
        state = self.client.get(self.path).json()
        return state if state["finished"] else None


def test_deploys_and_rollbacks_are_served_by_the_release_that_they_name(
    load, replica, make_source, plays, long_jobs, figures
):
    names = {replica.look()["live"]: replica.served()}
    for number in range(ROUNDS):
        source = make_source(f"round {number}")
        done = deploy(replica, source)
        plays.append(done)
        if number == ROUNDS - 1:  # those of earlier rounds would be cut off again and again
            assert done.reach("start_and_verify"), done.text
            # Whenever the worker stops, one of them runs and has far to go: the next is ordered halfway.
            while not done.over:
                if not long_jobs or long_jobs[-1].seconds() > LONG / 2:
                    long_jobs.append(LongJob(replica))
                time.sleep(1)
        figures.plays["deploy"].append(done.works())
        assert replica.served() == source.name
        well(replica)
        names[replica.look()["live"]] = source.name

        (previous,) = [one["id"] for one in replica.releases() if one["previous"]]
        done = rollback(replica)
        plays.append(done)
        figures.plays["rollback"].append(done.works())
        assert replica.look()["live"] == previous
        assert replica.served() == names[previous]
        well(replica)


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_that_is_broken_changes_nothing(load, replica, make_source, plays, kind):
    before, links = replica.served(), replica.look()
    broken = BROKEN[kind]
    done = deploy(replica, make_source("broken", broken), *broken.options).wait()
    plays.append(done)
    assert done.process.returncode != 0, done.text
    for words in broken.says:
        assert words in done.failed, f"the deploy does not say {words!r}:\n{done.text}"
    after = replica.look()
    assert [after[name] for name in ("record", "traffic", "live")] == [
        links[name] for name in ("record", "traffic", "live")
    ]
    assert replica.served() == before
    well(replica)


def test_a_job_that_a_stopping_worker_did_not_wait_for_began_again(load, long_jobs):
    attempts = [job.attempts() for job in long_jobs]
    assert max(attempts) > 1, "no worker stopped while a long job ran, so that nothing is proved"


def test_nothing_was_lost(load, figures, evidence_of, plays):
    load.stop()
    figures.add(load)
    print(load.said)
    assert load.lost_nothing, evidence_of(load, plays)
