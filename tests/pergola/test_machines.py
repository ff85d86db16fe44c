"""What pergola.machines decides and writes, without root; tests/machines makes machines with it."""

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from house import ROOT

from pergola.machines import addresses, cgroups, files, firewall, image, network, nspawn, record, system
from pergola.machines.record import Record

NET = ipaddress.IPv4Network("198.18.6.0/24")


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pergola.machines", *arguments], capture_output=True, text=True, check=False
    )


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["down"], "the following arguments are required: --state"),
        (["--state=x"], "the following arguments are required: VERB"),
        (["--state=x", "boot"], "invalid choice: 'boot'"),
        (["--state=x", "image", "systemd"], "image needs --images"),
        (["--state=x", "--images=x", "image"], "the following arguments are required: PACKAGE"),
        (["--state=x", "--images=x", "up", "app"], "the following arguments are required: --memory"),
        (["--state=x", "--images=x", "up", "app", "--memory=lots"], "'lots': write a number and M or G"),
        (["--state=x", "--images=x", "up", "app", "--memory=0M"], "'0M': write a number and M or G"),
    ],
)
def test_wrong_arguments_are_named(arguments, line):
    done = call(*arguments)
    assert done.returncode == 2
    assert line in done.stderr


def test_a_state_without_a_record_is_named(tmp_path):
    done = call(f"--state={tmp_path}", f"--images={tmp_path}", "up", "app", "--memory=1G")
    assert (done.returncode, done.stderr) == (1, f"{tmp_path} has no machines.json: take a network first.\n")


def test_down_without_a_record_has_nothing_to_do(tmp_path):
    done = call(f"--state={tmp_path}", "down")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_runs_from_a_checkout_without_an_environment():
    """-I: no site-packages of this environment, and no PYTHONPATH."""
    script = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; sys.argv[1:] = ['--help']; import runpy; "
    script += "runpy.run_module('pergola.machines', run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-B", "-c", script]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert "supervise" in done.stdout


# --- the record


def test_machines_get_addresses_in_the_order_of_their_names():
    known = Record("ab", str(NET))
    known.allocate(["one", "two"])
    assert known.addresses == {"one": "198.18.6.10", "two": "198.18.6.11"}


def test_a_machine_keeps_its_address_and_a_new_one_gets_a_free_one():
    known = Record("ab", str(NET), {"one": "198.18.6.11"})
    known.allocate(["zero", "one", "two"])
    assert known.addresses == {"one": "198.18.6.11", "zero": "198.18.6.10", "two": "198.18.6.12"}


def test_another_network_gives_all_machines_other_addresses():
    known = Record("ab", str(NET), {"one": "198.18.6.12"})
    known.move(str(NET))
    assert known.addresses == {"one": "198.18.6.12"}
    known.move("198.18.7.0/24")
    known.allocate(["one"])
    assert known.addresses == {"one": "198.18.7.10"}


def test_a_network_without_a_free_address_is_named():
    known = Record("ab", str(NET))
    with pytest.raises(SystemExit, match=r"m245: the network 198\.18\.6\.0/24 has no free address"):
        known.allocate(f"m{number}" for number in range(246))


def test_the_record_is_written_only_if_it_changed(tmp_path):
    assert record.load(tmp_path) is None
    known = record.new()
    assert record.save(tmp_path, known)
    assert not record.save(tmp_path, known)
    assert record.load(tmp_path) == known
    assert record.new().id != known.id
    assert set(json.loads((tmp_path / "machines.json").read_text())) == {"id", "network", "addresses"}


# --- addresses, for Ansible


def test_the_inventory_script_prints_the_addresses_of_the_environment_of_its_link(tmp_path):
    states, inventory = tmp_path / "it's mine", tmp_path / "inventories/shop"
    inventory.mkdir(parents=True)
    (states / "shop").mkdir(parents=True)
    record.save(states / "shop", Record("ab", str(NET), {"app": "198.18.6.10"}))
    link = inventory / "addresses.py"
    link.symlink_to(ROOT / "infra/ansible/inventory/local/addresses.py")
    environment = os.environ | {"PERGOLA_STATE": str(states)}
    done = subprocess.run([link, "--list"], env=environment, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert shown["machines"] == {"hosts": ["app"]}
    assert shown["_meta"]["hostvars"]["app"]["ansible_host"] == "198.18.6.10"
    key = shown["_meta"]["hostvars"]["app"]["ansible_ssh_private_key_file"]
    assert key == f"{states}/shop/ssh/id_ed25519"


def test_before_up_there_is_no_address(tmp_path):
    assert addresses.inventory_of(tmp_path) == {"machines": {"hosts": []}, "_meta": {"hostvars": {}}}


def test_the_state_directory_is_beside_the_checkout_unless_it_is_set(monkeypatch):
    inventory = Path("/srv/checkout/infra/ansible/inventory/shop")
    monkeypatch.delenv("PERGOLA_STATE", raising=False)
    assert addresses.state_directory(inventory) == Path("/srv/checkout/.pergola/shop")
    monkeypatch.setenv("PERGOLA_STATE", "/var/states")
    assert addresses.state_directory(inventory) == Path("/var/states/shop")


# --- networks


@pytest.fixture
def host(monkeypatch):
    """A host with these bridges and routes, as the program `ip` prints them."""
    shown = {"links": [], "routes": [{"dst": "default"}, {"dst": "10.0.0.0/8"}, {"dst": "broadcast"}]}

    def run(*command):
        return json.dumps(shown["links" if "link" in command else "routes"])

    monkeypatch.setattr(network, "run", run)
    return shown


def test_a_bridge_is_named_after_its_network():
    assert network.bridge_name(NET) == "pergola6"
    assert network.bridge_name(ipaddress.IPv4Network("198.19.255.0/24")) == "pergola511"


@pytest.mark.parametrize(
    ("alias", "claim"), [("ab 1", ("ab", "1")), ("", ("", "")), ("ab", ("ab", "")), ("ab 0 x", ("ab", "0"))]
)
def test_a_bridges_alias_names_its_owner_and_the_forwarding_before_it(alias, claim):
    assert network.claim_of(alias) == claim


def test_only_our_bridges_count(host):
    host["links"] = [
        {"ifname": "docker0"},
        {"ifname": "pergola6", "ifalias": "ab 0"},
        {"ifname": "pergola-vagrant"},
    ]
    assert network.bridges() == {"pergola6": ("ab", "0")}
    assert network.own_bridge(Record("ab")) == "pergola6"
    assert network.own_bridge(Record("cd")) is None


def test_the_recorded_network_comes_first_and_the_id_picks_the_others():
    order = network.candidates(Record("2", "198.18.1.0/24"), "198.18.0.0/22")
    assert [str(one) for one in order] == [f"198.18.{number}.0/24" for number in (1, 2, 3, 0)]


def test_a_network_with_a_bridge_or_a_route_is_passed_over(host):
    host["links"] = [{"ifname": "pergola0", "ifalias": "cd 0"}]
    host["routes"] += [{"dst": "198.18.1.64/26"}, {"dst": "198.18.2.7"}]
    free = network.free_networks(Record("0"), "198.18.0.0/22")
    assert str(next(free)) == "198.18.3.0/24"
    with pytest.raises(SystemExit, match=r"No network of 198\.18\.0\.0/22 is free: run `make down`"):
        next(free)


# --- the firewall


def chain(table, policy="accept", family="ip", hook="forward"):
    return {"chain": {"family": family, "table": table, "name": "FORWARD", "hook": hook, "policy": policy}}


def rule(table, handle, comment=None, family="ip"):
    return {
        "rule": {"family": family, "table": table, "chain": "FORWARD", "handle": handle, "comment": comment}
    }


@pytest.mark.parametrize(
    ("ruleset", "found"),
    [
        ([chain("filter")], []),
        ([chain("filter", policy="drop")], [(("ip", "filter", "FORWARD"), [])]),
        ([chain("filter"), rule("filter", 1)], [(("ip", "filter", "FORWARD"), [])]),
        (
            [
                chain("filter"),
                rule("filter", 1),
                rule("filter", 2, "pergola6"),
                rule("filter", 3, "pergola7"),
            ],
            [(("ip", "filter", "FORWARD"), ["2"])],
        ),
        ([chain("pergola7"), rule("pergola7", 1)], []),
        ([chain("filter", "drop", hook="input"), chain("filter", "drop", family="ip6")], []),
    ],
)
def test_chains_that_may_drop_forwarded_packets_are_found(ruleset, found):
    assert list(firewall.foreign_chains(ruleset, "pergola6")) == found


def test_the_bridges_own_table_masquerades_what_leaves_its_network():
    text = firewall.table("pergola6", NET)
    assert "table ip pergola6 {" in text
    assert "ip saddr 198.18.6.0/24 ip daddr != 198.18.6.0/24 masquerade" in text


# --- the image and a machine's files


def test_another_recipe_has_another_name():
    names = {
        image.name("", ["dbus"]),
        image.name("", ["dbus", "sudo"]),
        image.name("http://mirror.example.org/debian", ["dbus"]),
    }
    assert len(names) == 3
    assert image.name("", ["dbus"]) in names


def test_a_sites_mirror_has_the_security_archive_beside_it():
    assert image.sources("") == []
    assert image.sources("http://mirror.example.org/debian")[-1] == (
        "deb http://mirror.example.org/debian-security trixie-security main"
    )


def test_the_network_file_has_the_address_and_the_bridge_as_gateway():
    lines = files.network("198.18.6.10", "198.18.6.1").splitlines()
    assert {"Address=198.18.6.10/24", "Gateway=198.18.6.1", "IPv6AcceptRA=no"} <= set(lines)


def test_name_servers_on_loopback_are_left_out(tmp_path):
    """systemd-resolved's own file names the servers that it forwards to."""
    stub, upstream = tmp_path / "stub", tmp_path / "upstream"
    stub.write_text("# managed\nnameserver 127.0.0.53\noptions edns0\n")
    with pytest.raises(SystemExit, match=r"all on its loopback: name one in /etc/resolv\.conf"):
        files.name_servers((tmp_path / "missing", stub))
    upstream.write_text("nameserver 192.0.2.53\nnameserver ::1\nsearch example.org\n")
    assert files.name_servers((upstream, stub)) == "nameserver 192.0.2.53\nsearch example.org\n"


@pytest.mark.parametrize(("text", "size"), [("512M", 512 << 20), ("2G", 2 << 30)])
def test_memory_is_a_number_of_mebibytes_or_gibibytes(text, size):
    assert nspawn.size_of(text) == size


def test_the_status_of_a_process_that_has_ended_is_empty():
    assert nspawn.status("self")["Pid"] == str(os.getpid())
    assert nspawn.status("4194305") == {}


# --- files and locks


def test_a_file_is_replaced_only_if_its_text_differs(tmp_path):
    path = tmp_path / "file"
    assert system.write(path, "one")
    assert not system.write(path, "one")
    assert system.write(path, "two")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_tree_is_not_removed_through_a_link(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(SystemExit, match="is a symbolic link: remove it by hand"):
        system.remove_tree(tmp_path / "link")
    assert (tmp_path / "data").exists()
    system.remove_tree(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_waiting_returns_the_first_true_value_or_the_last_one():
    values = iter([0, 0, 3])
    assert system.wait_for(lambda: next(values), 5, step=0) == 3
    assert system.wait_for(lambda: "", 0) == ""


def test_processes_of_a_group_that_does_not_exist_are_none(tmp_path):
    assert cgroups.processes(tmp_path / "none") == []
    (tmp_path / "part").mkdir()
    (tmp_path / "cgroup.procs").write_text("1\n2\n")
    (tmp_path / "part/cgroup.procs").write_text("3\n")
    assert cgroups.processes(tmp_path) == ["1", "2", "3"]
