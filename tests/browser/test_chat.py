"""Two browsers on two processes of Daphne; one process is killed."""

import subprocess
import sys
from uuid import uuid4

import pytest

ROOM = "/chat/%EB%B9%84%EB%8F%99%EA%B8%B0-%EC%9E%A5%EA%B3%A0/"  # 비동기-장고, of the seed data
CONNECTED = "() => document.getElementById('chat-state').textContent === 'connected'"
TRIES = 20  # nginx gives a new socket to either process


def on_server(servers, *command):
    login = [sys.executable, "-m", "pergola", "ssh", servers.name, "web", "sudo", *command]
    return subprocess.run(login, check=True, capture_output=True, text=True, timeout=60).stdout


def process_of(page):
    """(process, instance), as the page shows them."""
    page.wait_for_function(CONNECTED, timeout=30_000)
    process, _, instance = page.locator("#chat-process").text_content().partition(", ")
    return int(process), instance  # "" under a server without Pergola's instances


def say(page, text):
    page.locator("#chat-text").fill(text)
    page.locator("#chat-text").press("Enter")


def heard(page):
    """[(id, text)] of what is shown, in its order."""
    return page.locator("#chat-log li[data-id]").evaluate_all(
        "lines => lines.map(line => [+line.dataset.id, line.childNodes[1].textContent])"
    )


def wait_until_heard(page, text):
    page.locator("#chat-log li", has_text=text).first.wait_for(timeout=30_000)


@pytest.fixture
def two(browser, url, login, replica):
    """Two windows, each with a session of its own; on a replica they are served by different processes."""
    contexts = [browser.new_context(base_url=url) for _ in range(2)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        login(page)
        page.goto(ROOM)
    for _ in range(TRIES):
        if replica is None or process_of(pages[0]) != process_of(pages[1]):
            break
        pages[1].reload()
    else:
        pytest.fail(f"after {TRIES} tries both windows are still served by {process_of(pages[0])}")
    yield pages
    for context in contexts:
        context.close()


@pytest.mark.disruptive
def test_a_process_is_killed_and_both_go_on_and_nothing_is_missing(request, replica):
    if replica is None:
        pytest.skip("make dev has one process, and it would be the whole site")
    servers = request.getfixturevalue("servers")
    one, other = two = request.getfixturevalue("two")
    run = uuid4().hex[:8]  # the room remembers earlier runs
    say(one, f"before {run}, 전에 ☂")
    for page in two:
        wait_until_heard(page, f"before {run}, 전에 ☂")
    before, instance = process_of(one)
    on_server(servers, "systemctl", "kill", "--signal=KILL", f"app-websocket@{instance}.service")
    # no waiting in between: some of these are written while nobody is there to take them
    for number in range(5):
        say(one, f"meanwhile {run}, one {number}")
        say(other, f"meanwhile {run}, other {number}")
    expected = {f"meanwhile {run}, {who} {number}" for who in ("one", "other") for number in range(5)}
    for text in expected:
        for page in two:
            wait_until_heard(page, text)
    assert process_of(one)[0] != before
    # since this run's first message: those of an earlier run went with its account, and left a gap
    first = next(number for number, text in heard(one) if run in text)
    one_heard, other_heard = ([line for line in heard(page) if line[0] >= first] for page in two)
    assert one_heard == other_heard
    assert [number for number, _ in one_heard] == list(range(first, first + len(one_heard)))
    assert sorted(text for _, text in one_heard if "meanwhile" in text) == sorted(expected)
    assert one.locator("#chat-unsent li").count() == 0


def test_a_message_is_shown_as_text_and_never_as_markup(two):
    one, other = two
    say(one, "<img src=x onerror=alert(1)>")
    wait_until_heard(other, "<img src=x onerror=alert(1)>")
    assert other.locator("#chat-log img").count() == 0


def test_the_room_fits_a_phone_and_works_by_keyboard(browser, url, login):
    context = browser.new_context(base_url=url, viewport={"width": 360, "height": 740})
    page = context.new_page()
    login(page)
    page.goto(ROOM)
    process_of(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#chat-text").focus()
    text = f"by keyboard alone {uuid4().hex[:8]}"
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    wait_until_heard(page, text)
    context.close()
