"""Networks of several states on one host, in a network namespace of the test's own."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def call(network_namespace):
    def call(*command, **options):
        done = subprocess.run(
            [*network_namespace, *command], capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture
def machines(call):
    return lambda state, *verb: call(sys.executable, "-m", "pergola.machines", f"--state={state}", *verb)


def forwarding(call):
    return call("cat", "/proc/sys/net/ipv4/ip_forward").strip()


@pytest.fixture
def states(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


def test_the_last_to_go_puts_forwarding_back(call, machines, states):
    one, two = states
    call("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    for state in states:
        machines(state, "network", "198.18.0.0/15", "app")
    machines(one, "down")
    assert forwarding(call) == "1"
    machines(two, "down")
    assert forwarding(call) == "0"
    assert "pergola" not in call("ip", "link") + call("nft", "list", "ruleset")


def test_forwarding_that_was_on_stays_on(call, machines, states):
    call("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    machines(states[0], "network", "198.18.0.0/15", "app")
    machines(states[0], "down")
    assert forwarding(call) == "1"


def test_two_states_never_share_a_network(machines, states):
    for state in states:
        machines(state, "network", "198.18.6.0/23", "app")
    networks = {json.loads((state / "machines.json").read_text())["network"] for state in states}
    assert networks == {"198.18.6.0/24", "198.18.7.0/24"}


def test_a_network_that_someone_else_took_meanwhile_is_left_to_them(call, machines, states):
    machines(states[0], "network", "198.18.6.0/23", "app", "second")
    record = states[0] / "machines.json"
    before = json.loads(record.read_text())
    # as after a restart of the host
    call("ip", "link", "delete", call("ip", "-brief", "link", "show", "type", "bridge").split()[0])
    call("ip", "link", "add", "vpn", "type", "bridge")
    call("ip", "address", "add", before["network"].replace(".0/", ".99/"), "dev", "vpn")
    call("ip", "link", "set", "vpn", "up")

    machines(states[0], "network", "198.18.6.0/23", "app", "second")

    after = json.loads(record.read_text())
    assert after["network"] != before["network"]
    for name, number in {"app": ".10", "second": ".11"}.items():
        assert after["addresses"][name] == after["network"].replace(".0/24", number)


def test_a_firewall_that_drops_what_it_does_not_know_is_opened_and_closed_again(call, machines, states):
    """As Docker's: an accept in a chain of ours would not overrule it."""
    docker = "chain FORWARD { type filter hook forward priority 0; policy drop; }"
    call("nft", "-f", "-", input=f"table ip filter {{\n{docker}\n}}")
    before = call("nft", "list", "ruleset")
    machines(states[0], "network", "198.18.0.0/15", "app")
    chain = call("nft", "list", "chain", "ip", "filter", "FORWARD")
    assert chain.count("accept") == 2
    assert machines(states[0], "network", "198.18.0.0/15", "app") == ""
    machines(states[0], "down")
    assert call("nft", "list", "ruleset") == before
