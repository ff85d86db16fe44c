"""The commands by the clock: they are there, they work, on one host at a time and one after another once."""

import contextlib
import json
import os
import shlex

import pytest
from infra.tools import journal, shell, stopped
from waiting import wait_until

pytestmark = pytest.mark.hosts("web")
EVIDENCE = ["app-clear-expired", "app-count-days", "app-backfill-words"]

# What each command of the sample has to do, and whether it is done: code for manage.py shell
SESSION = "from django.contrib.sessions.models import Session"
POST = "from django.contrib.auth.models import User; from posts.models import Author, Post"
WORK = {
    "clear-expired": (
        f"{SESSION}; from django.utils import timezone; "
        "Session.objects.update_or_create(session_key='probe', "
        "defaults={'session_data': 'x', 'expire_date': timezone.now()})",
        f"{SESSION}; done = not Session.objects.filter(session_key='probe').exists()",
    ),
    "count-days": (
        "from upkeep.models import DailyStatistic; DailyStatistic.objects.all().delete()",
        "from upkeep.models import DailyStatistic; done = DailyStatistic.objects.count() == 30",
    ),
    "backfill-words": (
        # as seed_data and a restored backup bring them: past save(), which counts
        f"{POST}; user, _ = User.objects.get_or_create(username='probe'); "
        "author, _ = Author.objects.get_or_create(user=user, defaults={'name': 'probe'}); "
        "Post.objects.bulk_create([Post(author=author, title='probe', body='one two')])",
        f"{POST}; posts = Post.objects.filter(author__name='probe'); "
        "done = posts.exists() and not posts.filter(words=None).exists()",
    ),
}
# what another host, or the timer itself, did within the last half hour
FORGET = "from upkeep.models import Run; Run.objects.filter(name={command!r}).delete()"
CLEAN_UP = f"{POST}; User.objects.filter(username='probe').delete()"
# says that it has the lock, and keeps it until it is stopped
HOLD = (
    "import os, psycopg, time; session = psycopg.connect(os.environ['DATABASE_DIRECT_URL']); "
    "session.execute('SELECT pg_advisory_lock({key})'); print('held', flush=True); time.sleep(300)"
)


@pytest.fixture
def timers(settings):
    return [timer["name"] for timer in settings["app_timers"]]


def is_done(host, name, before=""):
    """Whether the work is done, after some code of the test's: one start of Django for both."""
    code = f"{before}; {WORK[name][1]}; import json; print(json.dumps(done))".removeprefix("; ")
    return json.loads(shell(host, code).splitlines()[-1])


def forget(name):
    """Code that removes the record of a run of half a minute ago."""
    return FORGET.format(command=name.replace("-", "_"))


def run(host, name):
    """What one run of the timer's service said."""
    unit = f"app-{name}.service"
    host.check_output("systemctl start %s", unit)
    assert host.check_output("systemctl show -P Result %s", unit) == "success"
    assert host.check_output("systemctl show -P ExecMainStatus %s", unit) == "0"
    host.check_output("journalctl --sync")
    invocation = host.check_output("systemctl show -P InvocationID %s", unit)
    return journal(host, f"_SYSTEMD_INVOCATION_ID={invocation}")


def ended(host, name):
    """Whether no run of the timer's service is under way."""
    return host.check_output("systemctl show -P ActiveState %s", f"app-{name}.service") != "activating"


@contextlib.contextmanager
def work_to_do(host, name):
    with stopped(host, f"app-{name}.timer"):
        # it may have started a run right before
        wait_until(lambda: ended(host, name), "the timer's own run to end")
        try:
            assert not is_done(host, name, f"{WORK[name][0]}; {forget(name)}")
            yield
        finally:
            shell(host, CLEAN_UP)


@contextlib.contextmanager
def held(host, settings, key):
    """With the advisory lock in another session of PostgreSQL."""
    unit = f"app-probe-lock-{os.getpid()}"
    python = f"{settings['app_home']}/live/venv/bin/python"
    host.check_output(
        f"systemd-run --quiet --collect --unit={unit} {python} -c {shlex.quote(HOLD.format(key=key))}"
    )
    try:
        wait_until(lambda: "held" in journal(host, f"-u {unit}"), "the lock to be taken")
        yield
    finally:
        host.check_output("systemctl stop %s", unit)


def test_every_timer_is_listed_with_its_next_run(host, timers):
    """`systemctl list-timers` is where an operator looks."""
    listed = json.loads(host.check_output("systemctl list-timers --all --output=json 'app-*'"))
    assert {entry["unit"]: entry["activates"] for entry in listed} == {
        f"app-{name}.timer": f"app-{name}.service" for name in timers
    }
    assert all(entry["next"] for entry in listed)
    for name in timers:
        assert host.check_output("systemctl is-enabled %s", f"app-{name}.timer") == "enabled"


def test_no_timers_service_has_failed(host, timers):
    for name in timers:
        assert host.check_output("systemctl show -P Result %s", f"app-{name}.service") == "success"


@pytest.mark.disruptive
@pytest.mark.parametrize("name", WORK)
def test_a_timers_service_does_its_work(host, timers, name):
    assert name in timers
    with work_to_do(host, name):
        assert "nothing done" not in run(host, name)
        assert is_done(host, name)


@pytest.mark.disruptive
@pytest.mark.parametrize("name", WORK)
def test_what_was_done_just_now_is_not_done_again(host, name):
    """As on the second of two hosts whose clock strikes some seconds later."""
    command = name.replace("-", "_")
    with work_to_do(host, name):
        run(host, name)
        assert not is_done(host, name, WORK[name][0])
        assert f"{command} was done " in run(host, name)
        assert not is_done(host, name, forget(name))
        run(host, name)
        assert is_done(host, name)


@pytest.mark.disruptive
@pytest.mark.parametrize("name", WORK)
def test_while_another_session_holds_its_lock_a_command_says_so_and_does_nothing(host, settings, name):
    """As on the second of two hosts whose clocks strike at the same moment."""
    command = name.replace("-", "_")
    key = shell(host, f"from upkeep.lock import key; print(key({command!r}))").splitlines()[-1]
    with work_to_do(host, name):
        with held(host, settings, int(key)):
            assert f"{command} runs elsewhere: nothing done" in run(host, name)
            assert not is_done(host, name)
        assert "nothing done" not in run(host, name)
        assert is_done(host, name)


@pytest.mark.disruptive
def test_a_backfill_goes_on_where_it_was_stopped(host):
    """A bounded run is one that was stopped in time."""
    with work_to_do(host, "backfill-words"):
        assert not is_done(host, "backfill-words", WORK["backfill-words"][0])  # a second row
        said = host.check_output("app-manage backfill_words --batch 1 --batches 1 --force")
        assert "1 posts counted, more to come" in said
        assert not is_done(host, "backfill-words", forget("backfill-words"))
        run(host, "backfill-words")
        assert is_done(host, "backfill-words")
