"""Wrong arguments and a damaged appctl.json: one line, exit status 2, and nothing was changed."""

import pytest


def refused(host, *arguments):
    done = host.run(*arguments)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert host.asked() == []
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["slot", "start", "red"], "red is not a slot: the slots are blue and green"),
        (["switch", "red"], "red is not a slot"),
        (["verify", "red"], "red is not a slot"),
        (["run", "--slot", "red", "true"], "red is not a slot"),
        (["run"], "run needs a PROGRAM"),
        (["slot", "restart", "blue"], "invalid choice: 'restart'"),
        (["prune", "0"], "write 1 or more"),
        (["build", "one"], "build needs a BUNDLE, or --dry-run"),
        (["prune", "few"], "invalid int value: 'few'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_arguments_are_refused(host, arguments, says):
    assert says in refused(host, *arguments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "has no celery_parts, directory"),
        ('{"slots": []}', "has no celery_parts"),
    ],
)
def test_a_damaged_file_is_refused(host, text, says):
    host.file.write_text(text)
    assert says in refused(host, "status")


@pytest.mark.parametrize(
    ("name", "value"),
    [("home", "srv"), ("slots", "blue"), ("slots", [1, 2]), ("serves_web", 1), ("websocket_processes", True)],
)
def test_a_value_of_another_type_is_refused(host, name, value):
    host.write(**{name: value})
    assert f"{name} is {value!r}, not of type" in refused(host, "status")


def test_a_missing_file_is_refused(host):
    host.file.unlink()
    assert "is missing: make converge writes it" in refused(host, "status")
