"""`make new-app` finds out what an application wants, says where, and never guesses in silence."""

import json
import os
import pty
import shutil
import subprocess
import sys

import pytest
import yaml
from house import ANSIBLE, ROOT, read_yaml

SETTINGS = """
from .base import *
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3"}}
"""
BASE = """
INSTALLED_APPS = ["channels", "django.contrib.admin", "django.contrib.staticfiles"]
SECRET_KEY = "django-insecure"
ROOT_URLCONF = "shop.urls"
ASGI_APPLICATION = "shop.asgi.application"
STATIC_URL = "assets/"
MEDIA_URL = "/uploads/"
"""
FILES = {
    "src/manage.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.local")  # django\n',
    "src/shop/__init__.py": "",
    "src/shop/settings/__init__.py": "",
    "src/shop/settings/base.py": BASE,
    "src/shop/settings/production.py": SETTINGS,
    "src/shop/urls.py": 'urlpatterns = [path("", home), path("healthz", health)]\n',
    "src/shop/settings/local.py": "DEBUG = True\n",
    "src/shop/asgi.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.production")\n'
    "application = ProtocolTypeRouter({})\n",
    "src/shop/celery.py": 'from celery import Celery\napp = Celery("shop")\n',
    "src/basket/routing.py": 'urls = [re_path(r"^live/basket/$", consumers.Basket.as_asgi())]\n',
    "src/basket/models.py": "photo = models.ImageField()\n",
    "requirements.txt": "django==5.2.19\nchannels\ncelery[redis]\n",
}


class NewApp:
    def __init__(self, folder):
        self.source = folder / "source"
        self.name = f"made_by_test_{os.getpid()}"
        self.inventory = ANSIBLE / "inventory" / self.name
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name, text):
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, name=None, source=None, stdin=subprocess.DEVNULL, **answers):
        return subprocess.run(
            [sys.executable, "-m", "pergola", "new-app", name or self.name, source or self.source],
            cwd=ROOT,
            env=os.environ | answers,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def refused(self, *arguments, **answers):
        done = self.run(*arguments, **answers)
        assert done.returncode == 1, done.stdout
        assert not self.inventory.exists()
        assert len(done.stderr.splitlines()) == 1
        return done.stderr

    def settings(self):
        return yaml.safe_load((self.inventory / f"group_vars/{self.name}.yml").read_text())


@pytest.fixture
def new_app(tmp_path):
    made = NewApp(tmp_path)
    yield made
    shutil.rmtree(made.inventory, ignore_errors=True)


def test_what_stands_in_the_source_is_found(new_app):
    done = new_app.run()
    assert done.returncode == 0, done.stderr
    assert f"make up ENV={new_app.name}" in done.stdout
    assert new_app.settings() == {
        "app_source": str(new_app.source),
        "app_directory": "src",
        "app_settings_module": "shop.settings.production",
        "app_settings_overlay": True,
        "app_asgi": "shop.asgi:application",
        "app_websocket_path": "/live/",
        "app_requirements": "requirements.txt",
        "app_celery": "shop.celery:app",
        "app_static_url": "/assets/",
        "app_media_url": "/uploads/",
        "app_health_path": "/healthz",
    }
    written = (new_app.inventory / f"group_vars/{new_app.name}.yml").read_text()
    assert "# src/basket/routing.py\napp_websocket_path:" in written


def test_the_sample_gives_the_settings_that_it_has(new_app):
    """What app.yml says of the application of this checkout, found without reading app.yml."""
    assert new_app.run(source=ROOT).returncode == 0
    found, known = new_app.settings(), read_yaml(ANSIBLE / "group_vars/all/app.yml")
    assert found.pop("app_source") == str(ROOT)
    found.pop("app_media_url")  # nobody has asked for the sample's pictures
    assert found == {name: known[name] for name in found}


def test_the_environment_is_a_machine_of_its_own(new_app):
    """Of the same kind as the local one, in a state directory of its own name."""
    assert new_app.run().returncode == 0

    command = [sys.executable, "-m", "pergola", "settings", new_app.name]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    (settings,) = json.loads(shown.stdout).values()
    assert settings["machines_provider"] == "nspawn"
    assert settings["environment_state_directory"].endswith(f"/{new_app.name}")
    assert settings["app_application"] == "pergola_runtime.serving:application"
    theirs = ANSIBLE / "inventory/local/addresses.py"
    assert (new_app.inventory / "addresses.py").resolve() == theirs.resolve()


def test_an_environment_that_exists_is_never_written_over(new_app):
    assert new_app.run().returncode == 0
    before = new_app.settings()
    done = new_app.run(APP_HEALTH_PATH="/other")
    assert done.returncode == 1
    assert f"inventory/{new_app.name}/ is there already" in done.stderr
    assert new_app.settings() == before
    assert "is there already" in new_app.run("local").stderr


def test_a_project_of_another_kind(new_app):
    """No asgi.py, no Channels, no Celery, settings that read their environment."""
    (new_app.source / "src/shop/celery.py").unlink()
    (new_app.source / "src/shop/asgi.py").rename(new_app.source / "src/shop/wsgi.py")
    new_app.write(
        "src/shop/wsgi.py", 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.production")'
    )
    shutil.rmtree(new_app.source / "src/basket")
    reads = (
        BASE.replace("ASGI", "WSGI")
        + 'SECRET_KEY = os.environ["SECRET_KEY"]\nDATABASES = env("DATABASE_URL")\n'
    )
    new_app.write("src/shop/settings/base.py", reads)
    assert new_app.run().returncode == 0
    found = new_app.settings()
    assert (found["app_asgi"], found["app_websocket_path"], found["app_celery"]) == ("", "", "")
    assert found["app_settings_overlay"] is False
    assert found["app_media_url"] == ""


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("src/manage.py", "app_directory was not found: give APP_DIRECTORY= (where manage.py stands"),
        ("src/shop/urls.py", "app_health_path was not found: give APP_HEALTH_PATH= (a path that answers 200"),
        (
            "requirements.txt",
            "app_requirements was not found: give APP_REQUIREMENTS= (the list of its packages",
        ),
    ],
)
def test_without_a_terminal_it_says_which_variable_to_give(new_app, missing, line):
    (new_app.source / missing).unlink()
    assert line in new_app.refused()


def test_two_projects_in_one_source_are_not_chosen_between(new_app):
    new_app.write("other/manage.py", "# django\n")
    assert "give APP_DIRECTORY=" in new_app.refused()
    assert new_app.run(APP_DIRECTORY="src").returncode == 0
    assert new_app.settings()["app_directory"] == "src"


@pytest.mark.parametrize(
    ("arguments", "answers", "line"),
    [
        (("Shop",), {}, "NAME='Shop': write a name of lower case letters"),
        (("web",), {}, "NAME='web': write a name"),
        ((None, "/nowhere"), {}, "SOURCE='/nowhere': write a directory, or a git URL"),
        ((None, "file:///nowhere"), {}, "SOURCE=file:///nowhere: "),
        ((), {"APP_SETTINGS_OVERLAY": "yes"}, "APP_SETTINGS_OVERLAY=yes: write true or false"),
        ((), {"APP_REQUIREMENTS": "other.txt"}, "the source has no other.txt; give APP_REQUIREMENTS="),
        ((), {"APP_SETTINGS_MODULE": "shop.other"}, "src of the source has no shop.other"),
    ],
)
def test_what_cannot_work_is_refused(new_app, arguments, answers, line):
    assert line in new_app.refused(*arguments, **answers)


def test_a_git_url_is_looked_at_in_a_copy(new_app):
    def git(*arguments):
        who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        subprocess.run(["git", *who, "-C", new_app.source, *arguments], check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    (new_app.source / "src/manage.py").unlink()
    git("commit", "-q", "-a", "-m", "second")
    url = f"file://{new_app.source}"
    assert "give APP_DIRECTORY=" in new_app.refused(None, url)
    done = new_app.run(None, url, APP_REVISION="v1")
    assert done.returncode == 0, done.stderr
    found = new_app.settings()
    assert (found["app_source"], found["app_revision"], found["app_directory"]) == (url, "v1", "src")


def test_on_a_terminal_it_asks(new_app):
    (new_app.source / "src/shop/urls.py").unlink()
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"/alive\n")
        done = new_app.run(stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert "app_health_path: a path that answers 200" in done.stdout
    assert new_app.settings()["app_health_path"] == "/alive"
