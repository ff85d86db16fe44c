"""What runtime/README.md says: its numbers are the code's, and the tests that it names are there."""

import re
from pathlib import Path

import pytest
from pergola_runtime import choice, lean, middleware, redispool, threads

TESTS = Path(__file__).parents[2]
README = " ".join((TESTS.parent / "runtime/README.md").read_text().split())
NUMBERS = {
    "A process has {} threads at most": threads.MOST,
    "a process has at most {} threads": threads.MOST,
    "{} with WebSockets": threads.SOCKETS,
    "which does so after {:.0f} ms": threads.LONG * 1000,
    "(a password's hash) after some {:.0f} ms": threads.HANDOFF_BUSY * 1000,
    "`app_threads` calls ({})": choice.LIMIT,
    "hands its turn on after {:.0f} ms": threads.HANDOFF * 1000,
    "disconnects within {:.0f} ms": lean.LISTEN_AFTER * 1000,
    "makes no call for {} s": threads.REST,
    "CONN_MAX_AGE above {} s": choice.MAX_AGE,
    "`PERGOLA_CONN_MAX_AGE` seconds, {} at most": choice.MAX_AGE,
    "not in use is closed within {} seconds": choice.MAX_AGE,
    "gzip (bodies up to {:.0f} KB)": middleware.LARGE / 1024,
    "| connections of a process to a URL with the same options | {} |": redispool.MAX_CONNECTIONS,
    "| wait for a free connection | {} s |": redispool.COMMAND_SECONDS,
    "address of the host's name | {} s |": redispool.CONNECT_SECONDS,
    "| wait for an answer | {} s |": redispool.COMMAND_SECONDS,
    "loads its data | {} s from its first failure": redispool.OUTAGE_SECONDS,
    "delays a request once, by {} s": redispool.COMMAND_SECONDS,
    "({:g} s if it sends more commands)": redispool.COMMAND_SECONDS + redispool.CHECK_SECONDS,
    "A restart of Redis** of less than {} s": redispool.OUTAGE_SECONDS,
    "On the core layer they have {} s": redispool.BLOCKING_SECONDS,
}


@pytest.mark.parametrize("text", NUMBERS)
def test_the_readmes_numbers_are_the_codes(text):
    assert text.format(NUMBERS[text]) in README


def test_tests_that_the_readme_names_are_there():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", README)
    assert len(named) > 7
    for file, name in named:
        assert f"def {name}(" in (TESTS / "runtime/host/inside" / file).read_text()
    for path in re.findall(r"\| `(\w+/[\w/]+\.py)` \|", README):
        assert (TESTS / path).is_file(), path
