import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from api.models import Token
from app.servers import PYTHONPATH, ROOT, parts
from chat.models import Message, Room
from core.models import Visit
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.utils import timezone
from posts.models import Author, Post
from upkeep import lock
from upkeep.command import FRESH
from upkeep.management.commands import backfill_words
from upkeep.models import Backfill, DailyStatistic, Run

COMMANDS = ["clear_expired", "count_days", "backfill_words"]


@pytest.fixture
def mina(db):
    return User.objects.create_user("mina")


@pytest.fixture
def author(mina):
    return Author.objects.create(user=mina, name="미나")


def test_what_is_over_is_removed_and_nothing_else(mina):
    now = timezone.now()
    for name, at in (("over", now - timedelta(seconds=1)), ("good", now + timedelta(hours=1))):
        Session.objects.create(session_key=name, session_data="x", expire_date=at)
        Token.objects.create(digest=name, user=mina, expires_at=at)
    call_command("clear_expired", verbosity=0)
    assert [session.session_key for session in Session.objects.all()] == ["good"]
    assert [token.digest for token in Token.objects.all()] == ["good"]


def test_days_are_counted_by_utc_and_counted_again_give_the_same(author):
    midnight = datetime.combine(timezone.now().date(), datetime.min.time(), UTC)
    room = Room.objects.create(name="Lobby", slug="lobby")
    moments = (midnight, midnight - timedelta(microseconds=1), midnight - timedelta(days=40))
    for number, at in enumerate(moments):
        Post.objects.create(author=author, title="x", body="x", created_at=at)
        Message.objects.create(
            room=room, number=number, author=author.user, key=f"{number:032}", text="x", at=at
        )
        visit = Visit.objects.create()
        Visit.objects.filter(pk=visit.pk).update(at=at)
    for _ in range(2):
        call_command("count_days", days=3, force=True)
        days = DailyStatistic.objects.values_list("day", "visits", "posts", "messages")
        assert list(days) == [
            ((midnight - timedelta(days=back)).date(), count, count, count)
            for back, count in enumerate([1, 1, 0])
        ]
    Visit.objects.create()
    call_command("count_days", days=1, force=True)
    assert DailyStatistic.objects.first().visits == 2
    assert DailyStatistic.objects.count() == 3


@pytest.mark.parametrize("days", ["0", "401", "many", "-1"])
def test_a_number_of_days_out_of_bounds_is_refused(days):
    with pytest.raises(CommandError, match="is not a number from 1 to 400"):
        call_command("count_days", f"--days={days}")


def without_words(author, count):
    """As they were before there was a count."""
    posts = [Post(author=author, title="x", body="한글 단어 " * number) for number in range(1, count + 1)]
    Post.objects.bulk_create(posts)
    assert Post.objects.filter(words=None).count() == count


def words():
    return list(Post.objects.order_by("pk").values_list("words", flat=True))


def test_a_backfill_goes_on_where_the_last_run_stopped(author, capsys):
    without_words(author, 5)
    call_command("backfill_words", batch=2, batches=1)
    assert words() == [2, 4, None, None, None]
    call_command("backfill_words", batch=2, force=True)
    assert words() == [2, 4, 6, 8, 10]
    assert capsys.readouterr().out == "2 posts counted, more to come\n3 posts counted, none left\n"
    assert Backfill.objects.get().rows == 5


def test_a_backfill_that_is_killed_in_a_batch_leaves_that_batch_undone_and_goes_on(author, monkeypatch):
    without_words(author, 4)
    counted = []

    def killed_at_the_fourth(text):
        counted.append(text)
        if len(counted) == 4:
            raise KeyboardInterrupt
        return len(text.split())

    monkeypatch.setattr(backfill_words, "count_words", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        call_command("backfill_words", batch=2)
    assert words() == [2, 4, None, None]
    assert Backfill.objects.get().rows == 2
    monkeypatch.undo()
    call_command("backfill_words", batch=2, verbosity=0)
    assert words() == [2, 4, 6, 8]
    assert Backfill.objects.get().rows == 4


def test_what_is_saved_brings_its_count(author):
    post = Post.objects.create(author=author, title="x", body="one two")
    assert Post.objects.get().words == 2
    post.body = "one two three"
    post.save(update_fields=["body"])
    assert Post.objects.get().words == 3


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.django_db
def test_while_another_holds_the_lock_a_command_says_so_and_does_nothing(command, author, capsys):
    without_words(author, 1)
    with lock.held(command) as ours:
        assert ours
        call_command(command)
    assert capsys.readouterr().out == f"{command} runs elsewhere: nothing done\n"
    assert words() == [None]
    assert not DailyStatistic.objects.exists()
    call_command(command)
    assert "elsewhere" not in capsys.readouterr().out


@pytest.mark.django_db
def test_what_another_host_did_just_now_is_not_done_again(author, capsys):
    """Its clock struck some seconds later, when the first had given the lock back."""
    call_command("backfill_words")
    without_words(author, 1)
    call_command("backfill_words")
    assert "nothing done" not in capsys.readouterr().out.splitlines()[0]
    assert words() == [None]
    call_command("backfill_words")
    assert re.fullmatch(r"backfill_words was done \d+ s ago: nothing done\n", capsys.readouterr().out)
    Run.objects.update(at=timezone.now() - FRESH)
    call_command("backfill_words")
    assert words() == [2]
    without_words(author, 1)
    call_command("backfill_words", "--force")
    assert words() == [2, 2]


def test_what_failed_was_not_done(author, monkeypatch):
    monkeypatch.setattr(backfill_words, "count_words", None)
    without_words(author, 1)
    with pytest.raises(TypeError):
        call_command("backfill_words")
    assert not Run.objects.exists()


def test_the_clock_and_the_command_agree_on_the_time_between_two_runs():
    timers = yaml.safe_load((ROOT / "app/pergola.yml").read_text())["app_timers"]
    assert {timer["name"].replace("-", "_") for timer in timers} == set(COMMANDS)
    for timer in timers:
        assert re.fullmatch(r"hourly|\*-\*-\* \*:\d\d:00", timer["calendar"])
    assert timedelta(hours=1) == 2 * FRESH


def test_a_backfill_finds_what_was_committed_late_with_a_lower_key(author):
    without_words(author, 3)
    late = Post.objects.order_by("pk").first()
    Backfill.objects.create(name=backfill_words.NAME, done_to=late.pk)
    call_command("backfill_words", batch=2)
    assert words() == [2, 4, 6]
    assert Backfill.objects.get().rows == 3


@pytest.mark.django_db
def test_locks_of_different_names_are_apart():
    with lock.held("one") as one, lock.held("two") as two:
        assert one
        assert two
    keys = {lock.key(command) for command in COMMANDS}
    assert len(keys) == len(COMMANDS)
    assert all(-(2**63) <= key < 2**63 for key in keys)  # a bigint of PostgreSQL


HOLD = """
from upkeep.lock import held
lock = held("count_days")
print(lock.__enter__(), flush=True)
input()
"""


def test_another_process_sees_the_lock_and_it_ends_with_its_holder(tmp_path):
    database = tmp_path / "db.sqlite3"
    connection = DatabaseWrapper({"NAME": database})
    holder = subprocess.Popen(
        [sys.executable, "manage.py", "shell", "--no-imports", "-v", "0", "-c", HOLD],
        cwd=ROOT / "app",
        env=os.environ | PYTHONPATH | parts(database),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "True\n"
        with lock.of_a_file(connection, "count_days") as ours:
            assert not ours
    finally:
        holder.kill()
        holder.communicate()
    with lock.of_a_file(connection, "count_days") as ours:
        assert ours


@pytest.mark.django_db
def test_the_page_shows_what_was_done(client, author, collected):
    assert "Not counted yet" in client.get("/upkeep/").content.decode()
    without_words(author, 3)
    for command in COMMANDS:
        call_command(command, verbosity=0)
    page = client.get("/upkeep/").content.decode()
    assert page.count('<th scope="row">') == 14
    assert "words of posts: 3 rows" in page
