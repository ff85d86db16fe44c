import re
from urllib.parse import quote

import pytest
from chat import services
from chat.models import MAX_NAME, Room
from django.contrib.auth.models import User

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("collected")]


@pytest.fixture
def mina():
    return User.objects.create_user("mina")


@pytest.fixture
def logged_in(client, mina):
    client.force_login(mina)
    return client


@pytest.mark.parametrize("path", ["/chat/", "/chat/lobby/"])
def test_who_is_not_logged_in_is_asked_to(client, path):
    assert client.get(path).url == f"/login/?next={path}"


def test_a_room_is_made_and_opened_with_a_korean_name_in_its_address(logged_in, mina):
    answer = logged_in.post("/chat/", {"name": "비동기 장고"})
    assert answer.url == quote("/chat/비동기-장고/")
    page = logged_in.get(answer.url).content.decode()
    assert "비동기 장고" in page
    assert 'data-room="비동기-장고"' in page
    assert Room.objects.get().made_by == mina


def test_the_pages_have_nothing_inline(logged_in):
    Room.objects.create(name="Lobby", slug="lobby")
    for path in ("/chat/", "/chat/lobby/"):
        page = logged_in.get(path).content.decode()
        assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page)


def test_a_name_that_is_there_leads_to_its_room(logged_in):
    Room.objects.create(name="Lobby", slug="lobby")
    assert logged_in.post("/chat/", {"name": " LOBBY! "}).url == "/chat/lobby/"
    assert Room.objects.count() == 1


@pytest.mark.parametrize("name", ["", "   ", "!?", "☂", "x" * (MAX_NAME + 1), "a\0b", "\ufdfa" * MAX_NAME])
def test_a_name_that_is_none_is_refused_with_a_sentence(logged_in, name):
    answer = logged_in.post("/chat/", {"name": name})
    assert answer.status_code == 400
    assert "errorlist" in answer.content.decode()
    assert not Room.objects.exists()


def test_one_person_makes_a_bounded_number_of_rooms(logged_in, mina):
    Room.objects.bulk_create(
        Room(name=f"{number}", slug=f"{number}", made_by=mina) for number in range(services.MAX_ROOMS_OF_ONE)
    )
    assert logged_in.post("/chat/", {"name": "one more"}).status_code == 400
    assert logged_in.post("/chat/", {"name": "7"}).url == "/chat/7/"


def test_a_name_is_shown_as_it_is_and_never_as_markup(logged_in):
    logged_in.post("/chat/", {"name": "<b>bold</b>"})
    assert "&lt;b&gt;bold&lt;/b&gt;" in logged_in.get("/chat/").content.decode()


@pytest.mark.parametrize("slug", ["nothing", "없는-방", "x" * 300, "a b"])
def test_an_unknown_room_is_404(logged_in, slug):
    assert logged_in.get(f"/chat/{quote(slug)}/").status_code == 404


def test_a_room_takes_no_post(logged_in):
    Room.objects.create(name="Lobby", slug="lobby")
    assert logged_in.post("/chat/lobby/").status_code == 405
