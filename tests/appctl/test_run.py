"""Programs run with the live release's packages, in the application's sandbox."""

import pytest


@pytest.fixture
def live(host):
    host.release("one")
    (host.home / "slots/blue").symlink_to("../releases/one")
    (host.home / "live").symlink_to("slots/blue")
    host.program("systemd-run")
    return host


def words(host):
    """The program that systemd-run was asked for, after the shell that finds it."""
    (asked,) = host.asked()
    return asked.partition(" appctl ")[2]


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["manage", "migrate", "--plan"], "python manage.py migrate --plan"),
        (["manage", "--", "--version"], "python manage.py --version"),
        (["manage", "--"], "python manage.py"),
        (["manage"], "python manage.py"),
        (["run", "python", "-m", "http.server", "--help"], "python -m http.server --help"),
    ],
)
def test_all_options_after_the_program_are_its_own(live, arguments, program):
    assert live.run(*arguments).returncode == 0
    assert words(live) == program


def test_before_the_first_deploy_there_is_nothing_to_run(host):
    done = host.run("run", "true")
    assert done.returncode == 1
    assert "there is no release at" in done.stderr
    assert "run make deploy" in done.stderr
