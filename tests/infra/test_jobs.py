"""Jobs end once, whatever becomes of the worker, the queue or the page that watches."""

import contextlib
import json
import re
import ssl
import time
import uuid
from pathlib import Path

import httpx
import pytest
from infra.tools import children, journal, main_process, stopped
from waiting import wait_until

pytestmark = pytest.mark.hosts("worker")
EVIDENCE = ["app-worker", "app-beat", "app-web@*"]
WORKER, BEAT = "app-worker.service", "app-beat.service"
# What a killed worker held comes back after the broker's visibility timeout (60 s), one look of the next
# worker (5 s) or the end of a dead one's lock (20 s); then the job runs, on a machine that may be slow.
REDELIVERY = 240
# Seconds until a job begins. Less than the visibility timeout (60 s): a lost job would come back after that.
BEGINS = 55
ENDS = 120  # seconds until an undisturbed job has ended, its retries included
# 200 unfinished jobs of ten seconds each are what the sample takes, on two processes at least
CLOCK = 1200
TEXT = "포도나무 아래서"


class Visitor:
    """A browser with cookies, but without JavaScript."""

    def __init__(self, client):
        self.client = client

    def field(self, name):
        page = self.client.get("/jobs/").text
        return re.search(rf'name="{name}" value="([^"]+)"', page)[1]

    def order(self, kind, key=None):
        """The answer, and where the new job is asked for."""
        form = {
            "csrfmiddlewaretoken": self.field("csrfmiddlewaretoken"),
            "key": key or str(uuid.uuid4()),
            "kind": kind,
            "text": TEXT,
        }
        answer = self.client.post(
            "/jobs/start", data=form, headers={"Referer": f"{self.client.base_url}/jobs/"}
        )
        return answer, self.jobs()[0]

    def jobs(self):
        return re.findall(r'class="result" href="([^"]+)"', self.client.get("/jobs/").text)

    def state(self, job):
        return self.client.get(job).raise_for_status().json()

    def wait(self, job, condition, seconds, message):
        def reached():
            state = self.state(job)
            return condition(state) and state

        return wait_until(reached, lambda: f"{message}: {self.state(job)}", seconds)

    def wait_for_the_end(self, job, seconds=ENDS):
        return self.wait(job, lambda state: state["finished"], seconds, "the job to end")

    def wait_for_the_beginning(self, job):
        return self.wait(job, lambda state: state["attempts"] > 0, BEGINS, "the job to begin")

    def wait_for_progress(self, job):
        return self.wait(job, lambda state: state["progress"] > 0, BEGINS, "the job to get on")


@pytest.fixture
def visitor(settings):
    authority = Path(settings["secrets_authority_certificate"])
    context = ssl.create_default_context(cafile=authority if authority.exists() else None)
    with httpx.Client(base_url=settings["site_url"], verify=context, timeout=30) as client:
        yield Visitor(client)


def done_once(state, attempts=None):
    assert state["status"] == "done", state
    assert state["effects"] == 1, state
    assert state["result"]["text"] == TEXT
    if attempts:
        assert state["attempts"] == attempts, state


def test_a_jobs_log_lines_have_the_id_of_the_request_that_ordered_it(host, visitor):
    answer, job = visitor.order("fetch")
    visitor.wait_for_the_end(job)
    lines = journal(host, "--unit=app-worker.service", "--since=-5min")
    assert re.search(rf"INFO \S+ \[{answer.headers['x-request-id']}\]: Task jobs\.\S+ succeeded", lines)


def test_the_worker_has_as_many_processes_as_set(host, settings):
    master = main_process(host, WORKER)
    arguments = host.check_output("tr '\\0' '\\n' < /proc/%s/cmdline", str(master)).splitlines()
    wanted = int(arguments[arguments.index("--concurrency") + 1])
    assert len(children(host, master)) == wanted
    owners = host.check_output("stat -c %%U /proc/%s", str(master))
    assert owners == settings["app_user"]


def test_one_beat_runs_in_all(host, settings, servers):
    first = servers.groups["worker"][0] == settings["inventory_hostname"]
    running = host.run("pgrep -fa celery").stdout.splitlines()
    assert len([line for line in running if " beat " in line]) == int(first)


def test_the_clock_runs(visitor):
    """Read by anybody on the page: the periodic task counts its own runs. It waits behind visitors' jobs."""

    def refreshes():
        page = visitor.client.get("/jobs/").raise_for_status().text
        counted = re.search(r"Counted (\d+) times", page)
        assert counted or "Nothing was counted yet" in page  # as right after a first deploy
        return int(counted[1]) if counted else 0

    before = refreshes()
    wait_until(lambda: refreshes() > before, "the periodic task to run", CLOCK)


@pytest.mark.disruptive
@pytest.mark.parametrize("kind", ["fetch", "flaky"])
def test_a_job_is_done_and_its_text_unharmed(visitor, kind):
    answer, job = visitor.order(kind)
    assert answer.status_code == 302
    visitor.wait_for_the_beginning(job)
    done_once(visitor.wait_for_the_end(job), attempts=3 if kind == "flaky" else 1)


@pytest.mark.disruptive
def test_a_running_job_can_be_cancelled(visitor):
    _, job = visitor.order("crunch")
    visitor.wait_for_progress(job)
    form = {"csrfmiddlewaretoken": visitor.field("csrfmiddlewaretoken")}
    visitor.client.post(f"{job}/cancel", data=form, headers={"Referer": f"{visitor.client.base_url}/jobs/"})
    state = visitor.wait_for_the_end(job)
    assert (state["status"], state["effects"]) == ("cancelled", 0)


@pytest.mark.disruptive
def test_a_worker_that_is_restarted_leaves_no_job_behind(host, visitor):
    """One that runs, one that waits for its retry, one that waits for a process."""
    flaky, crunch, fetch = (visitor.order(kind)[1] for kind in ("flaky", "crunch", "fetch"))
    visitor.wait_for_progress(crunch)
    before = main_process(host, WORKER)
    host.check_output("systemctl restart %s", WORKER)
    assert main_process(host, WORKER) != before
    for job in (crunch, fetch, flaky):
        done_once(visitor.wait_for_the_end(job))


@pytest.mark.disruptive
def test_a_job_whose_process_is_killed_runs_again(host, visitor):
    _, job = visitor.order("crunch")
    visitor.wait_for_progress(job)
    master = main_process(host, WORKER)
    for child in children(host, master):
        host.run("kill -KILL %s", str(child))
    done_once(visitor.wait_for_the_end(job, REDELIVERY), attempts=2)
    assert main_process(host, WORKER) == master


@pytest.mark.disruptive
@pytest.mark.full  # a minute until Redis delivers the job again; tests/runtime/unit has a shorter time
def test_a_job_whose_worker_is_killed_runs_again(host, visitor):
    _, job = visitor.order("crunch")
    visitor.wait_for_progress(job)
    host.check_output("systemctl kill --signal=KILL %s", WORKER)
    done_once(visitor.wait_for_the_end(job, REDELIVERY), attempts=2)


@pytest.mark.disruptive
def test_a_job_that_the_queue_could_not_take_is_kept_and_runs_later(host, visitor):
    visitor.client.get("/jobs/")
    with stopped(host, "redis-server.service"):
        answer, job = visitor.order("fetch")
        assert answer.status_code == 503
        assert "Your job is kept" in answer.text
        assert visitor.state(job)["status"] == "waiting"
    done_once(visitor.wait_for_the_end(job))


def database_clients(host, settings):
    said = host.check_output(
        "sudo -u pgbouncer psql -h %s -p %s pgbouncer -AtF' ' -c 'SHOW CLIENTS'",
        settings["pgbouncer_socket_directory"],
        str(settings["pgbouncer_port"]),
    )
    return [line for line in said.splitlines() if f" {settings['database_name']} " in line]


def events(lines):
    """The jobs' states in a stream, each with its event's id."""
    number = None
    for line in lines:
        if line.startswith("id: "):
            number = int(line.removeprefix("id: "))
        elif line.startswith("data: "):
            yield number, json.loads(line.removeprefix("data: "))


@pytest.mark.disruptive
def test_a_watched_job_pushes_its_progress_and_holds_no_database_connection(host, settings, visitor):
    """Ten watchers of a job that waits, as its worker is stopped; then it runs."""
    with stopped(host, WORKER), contextlib.ExitStack() as stack:
        _, job = visitor.order("fetch")
        streams = []
        for _ in range(10):
            answer = stack.enter_context(visitor.client.stream("GET", f"{job}/events"))
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["cache-control"] == "no-store"
            streams.append(events(answer.iter_lines()))
        first = [next(stream) for stream in streams]
        assert {state["status"] for _, state in first} == {"waiting"}
        # a stream lives for 20 s: what is seen later proves nothing
        wait_until(lambda: database_clients(host, settings) == [], "the streams to hold no connection", 15)
        host.check_output("systemctl start %s", WORKER)
        seen = [*first[:1], *streams[0]]
        # a stream ends after 20 s, and a browser comes back with the last id that it has seen
        end = time.monotonic() + 120
        while not seen[-1][1]["finished"]:
            assert time.monotonic() < end, seen
            last = {"Last-Event-ID": str(seen[-1][0])}
            with visitor.client.stream("GET", f"{job}/events", headers=last) as answer:
                seen += events(answer.raise_for_status().iter_lines())
    numbers = [number for number, _ in seen]
    assert numbers == sorted(set(numbers)), seen
    progress = [state["progress"] for _, state in seen]
    assert progress == sorted(progress)
    # the steps, which take a second each, were pushed: the row is looked at every ten seconds only
    assert {0, 100} < set(progress) <= {0, 33, 66, 100}, seen
    state = visitor.wait_for_the_end(job)
    done_once(state)
    again = visitor.client.get(f"{job}/events", headers={"Last-Event-ID": "1"})
    assert [number for number, _ in events(again.text.splitlines())] == [state["version"]]
    nothing = visitor.client.get(f"{job}/events", headers={"Last-Event-ID": str(state["version"])})
    assert nothing.status_code == 204
