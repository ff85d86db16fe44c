import re

import pytest
from chat.models import Message, Room
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import models
from posts.models import Author, Post

pytestmark = pytest.mark.django_db


def passwords(capsys):
    return dict(re.findall(r"^(\w+) +([a-z2-7]{16}) ", capsys.readouterr().out, re.M))


def test_run_twice_it_adds_once_and_speaks_korean_too(capsys):
    call_command("seed_data")
    call_command("seed_data")
    assert capsys.readouterr().out == (
        "200 users, 400 posts, 240 messages added\n0 users, 0 posts, 0 messages added\n"
    )
    assert (User.objects.count(), Post.objects.count(), Message.objects.count()) == (200, 400, 240)
    assert 50 < Post.objects.tagged("비동기").count() < 300
    assert {post.tags.count() for post in Post.objects.all()[:20]} == {2}
    assert not any(user.has_usable_password() for user in User.objects.all()[:10])


def test_a_room_goes_on_where_its_seed_ends():
    call_command("seed_data", verbosity=0)
    assert Message.objects.filter(room__slug="비동기-장고", text__contains="비동기 뷰").exists()
    for room in Room.objects.annotate(highest=models.Max("messages__number")):
        assert room.highest == room.last == room.messages.count()
        times = [message.at for message in room.messages.order_by("number")]
        assert times == sorted(times)


def test_what_somebody_wrote_stays():
    User.objects.create_user("mina", first_name="Mina")
    Room.objects.create(name="Ours", slug="lobby")
    call_command("seed_data", verbosity=0)
    assert User.objects.get(username="mina").first_name == "Mina"
    assert Room.objects.get(slug="lobby").name == "Ours"
    assert Post.objects.count() == 400


def test_the_demo_accounts_can_log_in_with_what_is_printed(client, capsys):
    call_command("seed_data", accounts=True)
    printed = passwords(capsys)
    assert set(printed) == {"mina", "jonas", "sora"}
    for name, password in printed.items():
        assert client.login(username=name, password=password)
    assert [user.username for user in User.objects.filter(is_staff=True)] == ["sora"]


def test_run_again_the_accounts_stay_as_they_are(capsys):
    """A new hash of the same password would log everybody out."""
    call_command("seed_data", accounts=True)
    first, hashes = passwords(capsys), set(User.objects.values_list("password", flat=True))
    call_command("seed_data", accounts=True)
    assert passwords(capsys) == first
    assert set(User.objects.values_list("password", flat=True)) == hashes


def test_another_site_has_other_passwords(capsys, settings):
    call_command("seed_data", accounts=True)
    first = passwords(capsys)
    User.objects.filter(username__in=first).delete()
    settings.SECRET_KEY = "another site's, and long enough to be one at that"
    call_command("seed_data", accounts=True)
    assert not set(passwords(capsys).values()) & set(first.values())


def test_an_account_with_a_password_of_its_own_keeps_it(client, capsys):
    """On a site that people use, `mina` may be one of them."""
    User.objects.create_user("mina", password="her own")
    call_command("seed_data", accounts=True)
    out = capsys.readouterr().out
    assert re.search(r"^mina +\(another: kept\) +writes and chats$", out, re.M)
    assert client.login(username="mina", password="her own")


def test_a_writer_without_a_name_is_no_trouble():
    user = User.objects.create_user("mina")
    Author.objects.create(user=user, name="")
    call_command("seed_data", verbosity=0)
    assert Post.objects.count() == 400
