"""A release on two hosts: both get ready, then one after the other gets the traffic, until one fails.

Each host is whole, with a database of its own; what is looked at is the order of a deploy.
"""

import json
import shlex
import shutil

import pytest
from machines.environment import ANSIBLE, ROOT, Environment

from pergola.environments import GROUPS

pytestmark = pytest.mark.full  # two machines of its own

HOSTS = ("one", "two")


class Pair(Environment):
    def __init__(self, folder):
        inventory = folder / "pair"
        inventory.mkdir()
        (inventory / "addresses.py").symlink_to(ANSIBLE / "inventory/local/addresses.py")
        (inventory / "group_vars").symlink_to(ANSIBLE / "inventory/local/group_vars")
        groups = {group: {"hosts": dict.fromkeys(HOSTS)} for group in ("local", *GROUPS)}
        (inventory / "hosts.yml").write_text(json.dumps(groups))
        super().__init__(folder / "states", inventory)
        self.source = folder / "source"
        shutil.copytree(ROOT / "app", self.source / "app", ignore=shutil.ignore_patterns("__pycache__"))
        (self.source / "requirements").mkdir()
        shutil.copy(ROOT / "requirements/app.txt", self.source / "requirements/app.txt")
        # no two hosts share files here, and this test stores none
        self.told = ["-e", json.dumps({"app_source": str(self.source), "app_media": "shared"})]

    def play(self, verb, *arguments, **options):
        return super().play(verb, *self.told, *arguments, **options)

    def ssh(self, command, name):
        return super().ssh(f"sudo sh -c {shlex.quote(command)}", name, login="ops")

    def change(self, number):
        """Make the source another release."""
        (self.source / "app/core/marker.py").write_text(f"NUMBER = {number}\n")

    def live(self):
        """The release that each host's traffic goes to, as it answers."""
        command = "appctl verify live && basename $(readlink -f /srv/app/live)"
        return [self.ssh(command, name) for name in HOSTS]

    def idle(self):
        """What runs in each host's idle slot."""
        command = (
            "for slot in blue green; do [ $slot = $(basename $(readlink /srv/app/live)) ] || "
            'systemctl list-units --plain --legend=no --state=active,activating "app-web*@$slot*"; done'
        )
        return [self.ssh(command, name) for name in HOSTS]


@pytest.fixture(scope="module")
def pair(host_of_machines, tmp_path_factory):
    made = Pair(tmp_path_factory.mktemp("batches"))
    try:
        made.works("up")
        made.works("site")
        made.works("deploy", "--limit", "two")  # so that each database is migrated
        made.works("deploy")
        yield made
    finally:
        made.works("down")


def deploy_that_two_refuses(pair):
    """Return what it said."""
    pair.ssh(
        "cp -a /etc/app/app.env /root/app.env && sed -i 's/^REDIS_URL=.*/REDIS_URL=redis:\\/\\/127.0.0.1:1/' "
        "/etc/app/app.env",
        "two",
    )
    try:
        done = pair.play("deploy", "-e", "deploy_ready_seconds=5")
    finally:
        pair.ssh("mv /root/app.env /etc/app/app.env", "two")
    assert done.returncode
    return " ".join(done.stdout.split())


def test_a_release_that_one_host_refuses_moves_no_traffic_on_any(pair):
    before = pair.live()
    assert len(set(before)) == 1
    pair.change(1)
    said = deploy_that_two_refuses(pair)
    assert "gets no traffic on any further host" in said
    assert "two: " in said
    assert pair.live() == before
    assert pair.idle() == ["", ""]


def test_a_release_that_the_second_host_refuses_stays_live_on_the_first(pair):
    pair.change(4)
    pair.works("deploy", "--limit", "one")
    before = pair.live()
    assert before[0] != before[1]
    assert "two: " in deploy_that_two_refuses(pair)
    assert pair.live() == before
    assert pair.idle() == ["", ""]


def test_a_host_that_does_not_switch_leaves_the_others_as_they_were_and_says_so(pair):
    before = pair.live()
    pair.change(2)
    pair.ssh(
        "cp -a /usr/local/sbin/appctl /root/ && printf '%s\\n' '#!/bin/sh' '[ \"$2\" = \"\" ] || "
        '[ "$1" != switch ] || exit 3\' \'exec /root/appctl "$@"\' > /usr/local/sbin/appctl',
        "two",
    )
    try:
        done = pair.play("deploy")
    finally:
        pair.ssh("mv /root/appctl /usr/local/sbin/appctl", "two")
    said = " ".join(done.stdout.split())
    assert done.returncode
    assert "failed at the switch on two" in said
    assert "is live on one;" in said
    one, two = pair.live()
    assert one != before[0]
    assert two == before[1]

    pair.works("deploy")  # goes on where that one stopped
    assert pair.live() == [one, one]
    assert pair.idle() == ["", ""]


def test_a_rollback_takes_every_host_back(pair):
    before = pair.live()
    pair.change(3)
    pair.works("deploy")
    assert pair.live() != before
    pair.works("rollback")
    assert pair.live() == before
