"""The site in Chromium: on the replica of ENV, or on SITE_URL=http://localhost:8000, as make dev has it.

They log in, write and delete, so that they refuse any site but a local replica and this computer's own.
With SITE_URL, PASSWORD is that of `sora`, whom make dev prints, or of ACCOUNT, and AUTHORITY the file of who
signed the site's certificate.

SCREENSHOTS=directory keeps a picture of each page.
"""

import json
import os
import secrets
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import debian
import pytest
from faults.replica import bridge_of
from playwright.sync_api import sync_playwright

PATIENCE = 60
PACKAGES = {"chromium": "chromium", "certutil": "libnss3-tools", "fc-list": "fontconfig"}
FONTS = "fonts-nanum"  # without one, Korean text is a row of boxes on the pictures

MAKE_ACCOUNT = """
import json
from django.contrib.auth.models import User
username, password = json.loads({login!r})
User.objects.create_superuser(username, password=password, first_name="미나", last_name="김")
"""
REMOVE_ACCOUNT = """
from django.contrib.auth.models import User
from posts.models import Post
Post.objects.filter(author__user__username={username!r}).delete()
User.objects.filter(username={username!r}).delete()
"""


@pytest.fixture(scope="session")
def local_url():
    """SITE_URL, where it is given: a site on this computer, without an environment."""
    url = os.environ.get("SITE_URL", "").rstrip("/")
    if url and urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"):
        refuse(f"SITE_URL={url}: these tests write; they take a site on this computer (localhost) alone")
    return url


def refuse(why):
    pytest.exit(why, returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def replica(request, local_url):
    """The environment's settings of its first edge and web host; None for a SITE_URL."""
    if local_url:
        return None
    servers = request.getfixturevalue("servers")
    if not all("machines_provider" in settings for settings in servers.settings.values()):
        refuse(f"ENV={servers.name}: these tests write, and it is not a replica on this machine")
    return SimpleNamespace(
        edge=request.getfixturevalue("edge"), web=servers.settings[servers.groups["web"][0]]
    )


@pytest.fixture(scope="session")
def url(local_url, replica):
    return local_url or replica.edge["site_url"]


@pytest.fixture(scope="session")
def programs():
    """Chromium and what else comes from Debian, installed where it is missing and may be."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if shutil.which("fc-list") and not command("fc-list", ":lang=ko"):
        missing.append(FONTS)
    if not missing:
        return
    if not debian.may_install():
        if missing == [FONTS]:
            return
        refuse(f"tests/browser needs {' '.join(missing)}: apt-get install {' '.join(missing)}")
    try:
        debian.install(*dict.fromkeys([*missing, FONTS]))
    except AssertionError as error:
        refuse(str(error))


def command(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        refuse(f"{shlex.join(map(str, arguments))}: {done.stderr.strip()[-500:]}")
    return done.stdout


@pytest.fixture(scope="session")
def home(request, programs, replica, tmp_path_factory):
    """A home directory whose browsers trust the environment's own authority, and no more than others do."""
    home = tmp_path_factory.mktemp("home")
    authority = request.getfixturevalue("authority") if replica else os.environ.get("AUTHORITY")
    if authority:
        database = home / ".pki/nssdb"
        database.mkdir(parents=True)
        command("certutil", "-N", "-d", f"sql:{database}", "--empty-password")
        trusted = ("-A", "-d", f"sql:{database}", "-n", "the replica's", "-t", "C,,", "-i", authority)
        command("certutil", *trusted)
    return home


@pytest.fixture(scope="session")
def chromium(replica, programs, tmp_path_factory):
    """The program to start: Chromium, where root runs the tests in a network namespace of its own.

    Chromium breaks off what it loads (ERR_NETWORK_CHANGED) when an address of this computer comes or goes,
    as addresses do while another run of the tests makes or removes machines.
    """
    program = shutil.which("chromium")
    if os.geteuid() or replica is None:
        yield program
        return
    bridge, network = bridge_of(replica.edge["ansible_host"])
    name = f"pergola-b{os.getpid() % 100_000}"  # of a link, which has 15 characters at most
    inside = f"ip -netns {name}"
    commands = (
        f"ip netns add {name}",
        f"ip link add {name} type veth peer name eth0 netns {name}",
        f"ip link set {name} master {bridge} up",
        f"{inside} link set lo up",
        f"{inside} address add {network[-3]}/{network.prefixlen} dev eth0",
        f"{inside} link set eth0 up",
    )
    wrapper = tmp_path_factory.mktemp("chromium") / "chromium"
    wrapper.write_text(f'#!/bin/sh\nexec nsenter --net=/run/netns/{name} {program} "$@"\n')
    wrapper.chmod(0o755)
    try:
        for line in commands:
            command(*line.split())
        yield str(wrapper)
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.fixture(scope="session")
def browser(home, chromium):
    arguments = ["--no-proxy-server"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # which refuses to be root's
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium, args=arguments, env=os.environ | {"HOME": str(home)}
        )
        yield found
        found.close()


@pytest.fixture
def new_page(browser, url):
    """Opens a page in a browser profile of its own. What the browser complains of fails the test, but for
    the statuses that are expected."""
    troubles, contexts = [], []

    def listen(page, expected):
        def console(message):
            known = any(f"status of {status} " in message.text for status in expected)
            if message.type in ("error", "warning") and not known:
                troubles.append(f"{page.url}: {message.type}: {message.text}")

        def failed(request):
            if request.failure != "net::ERR_ABORTED":  # which is what leaving a page does
                troubles.append(f"{page.url}: {request.method} {request.url}: {request.failure}")

        page.on("console", console)
        page.on("requestfailed", failed)
        page.on("pageerror", lambda error: troubles.append(f"{page.url}: {error}"))

    def new(expected=(), **options):
        context = browser.new_context(base_url=url, locale="en-GB", **options)
        context.set_default_timeout(PATIENCE * 1000)
        contexts.append(context)
        context.on("page", lambda page: listen(page, expected))
        return context.new_page()

    yield new
    for context in contexts:
        context.close()
    assert not troubles, "\n".join(troubles)


@pytest.fixture
def page(new_page):
    return new_page()


@pytest.fixture(scope="session")
def account(replica):
    """A name and a password of somebody who may write posts and see the admin."""
    if replica is None:
        if "PASSWORD" not in os.environ:
            refuse("SITE_URL is given and PASSWORD is not: take sora's, which make dev prints")
        yield SimpleNamespace(username=os.environ.get("ACCOUNT", "sora"), password=os.environ["PASSWORD"])
        return
    made = SimpleNamespace(username=f"browser-{secrets.token_hex(4)}", password=secrets.token_urlsafe(16))
    manage_shell(replica.web, MAKE_ACCOUNT.format(login=json.dumps([made.username, made.password])))
    yield made
    manage_shell(replica.web, REMOVE_ACCOUNT.format(username=made.username))


def manage_shell(settings, code):
    """By standard input: arguments are for all to see."""
    arguments = [*settings["host_login"], "--", "sudo app-manage shell"]
    done = subprocess.run(arguments, input=code, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def login(account):
    def log_in(page):
        page.goto("/login/?next=/account/")
        page.get_by_label("Username").fill(account.username)
        page.get_by_label("Password").fill(account.password)
        page.get_by_role("main").get_by_role("button", name="Log in").click()
        page.wait_for_url("**/account/")

    return log_in


@pytest.fixture(scope="session")
def screenshot():
    directory = os.environ.get("SCREENSHOTS")

    def keep(page, name):
        if directory:
            page.screenshot(path=Path(directory) / f"{name}.png", full_page=True)

    return keep
