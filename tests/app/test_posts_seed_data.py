import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from posts.models import Post

pytestmark = pytest.mark.django_db


def test_run_twice_it_adds_once_and_speaks_korean_too(settings, capsys):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    call_command("seed_data", password="hush hush")
    call_command("seed_data")
    assert capsys.readouterr().out == "200 users, 400 posts added\n0 users, 0 posts added\n"
    assert (User.objects.count(), Post.objects.count()) == (200, 400)
    assert 50 < Post.objects.tagged("비동기").count() < 300
    assert {post.tags.count() for post in Post.objects.all()[:20]} == {2}
    assert User.objects.get(username="mina").check_password("hush hush")
    assert not User.objects.get(username="reader001").has_usable_password()


def test_what_somebody_wrote_stays(settings):
    User.objects.create_user("mina", first_name="Mina")
    call_command("seed_data", verbosity=0)
    assert User.objects.get(username="mina").first_name == "Mina"
    assert Post.objects.count() == 400
