"""A line of the log names its request, and has a length that no client chooses."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pergola_runtime import logs


@pytest.fixture
def line():
    """What a message becomes."""
    formatter = logs.Formatter()

    def written(message, *arguments, error=None):
        info = (type(error), error, error.__traceback__) if error else None
        record = logging.LogRecord("shop.views", logging.WARNING, __file__, 1, message, arguments, info)
        return formatter.format(record)

    return written


def test_a_line_has_the_level_the_logger_and_the_requests_id(line):
    token = logs.request_id.set("5ca1ab1e")
    try:
        assert line("no %s", "tea") == "WARNING shop.views [5ca1ab1e]: no tea"
    finally:
        logs.request_id.reset(token)
    assert line("no tea") == "WARNING shop.views [-]: no tea"


def test_what_a_client_sends_is_cut(line):
    written = line("Not Found: %s", "/" + "a" * 30_000)
    assert len(written) < logs.LINE + 30
    assert written.endswith("... (30036 characters)")


@pytest.mark.parametrize("message", ["b" * 30_000, "b\n" * 30_000, "é\n" * 30_000])
def test_a_traceback_keeps_its_end_and_has_a_largest_size(line, message):
    def one(level):
        other(level - 1)  # two functions, as Python shortens the lines of one that calls itself

    def other(level):
        if level <= 0:
            raise ValueError(message)
        one(level)

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        one(100)
    written = line("failed", error=caught.value)
    assert written.startswith("WARNING shop.views [-]: failed\n...\n")
    assert written.splitlines()[-1][0] in "VbeVé"
    assert len(written.encode()) <= logs.RECORD


def test_a_short_traceback_is_whole(line):
    try:
        raise KeyError("tea")
    except KeyError as error:
        written = line("failed", error=error)
    assert written.splitlines()[1] == "Traceback (most recent call last):"
    assert written.endswith("KeyError: 'tea'")


# a server's own logger, made before, and a project's own handler and format
OWN_LOGGING = """
import gc, logging, sys
logging.getLogger("server").addHandler(logging.StreamHandler(sys.stdout))
from pergola_runtime import logs
logs.limit_streams()
gc.collect()
logging.basicConfig(format="%(message)s", stream=sys.stderr)
logging.getLogger("server").warning(sys.argv[1] * 30_000)
print("the end")
"""


@pytest.mark.parametrize("text", ["a", "\N{LATIN SMALL LETTER E WITH ACUTE}", "line\n"])
def test_a_projects_own_format_is_cut_as_well(text):
    environment = os.environ | {"PYTHONPATH": str(Path(logs.__file__).parents[1])}
    command = [sys.executable, "-c", OWN_LOGGING, text]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stderr.decode().startswith(text)
    assert len(done.stderr) <= logs.RECORD
    assert done.stdout == done.stderr + b"the end\n"
