"""server_files: its module in this process, and its action plugin by ansible-playbook, on this computer."""

import getpass
import grp
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import server_files
import yaml
from ansible.module_utils.testing import patch_module_args
from house import ROOT

ME = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


@pytest.fixture
def install(tmp_path, capsys):
    """The module with a file of this content, if any; returns its result."""

    def run(content=None, check=False, **more):
        file = {"dest": str(tmp_path / "etc/shop.conf"), "content": content, "mode": "0600", "secret": False}
        wanted = {"files": [ME | {"validate": ""} | file] if content is not None else [], "absent": []}
        wanted |= {"watch": [], "name": "", "applied": False, "states": str(tmp_path / "states")} | more
        (tmp_path / "wanted.json").write_text(json.dumps(wanted))
        arguments = {"wanted": str(tmp_path / "wanted.json")}
        arguments |= {"_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            server_files.main()
        return json.loads(capsys.readouterr().out)

    run.path = tmp_path / "etc/shop.conf"
    return run


def test_a_file_is_written_and_then_left_alone(install):
    assert install("one\n")["files"] == [str(install.path)]
    assert (install.path.read_text(), install.path.stat().st_mode & 0o777) == ("one\n", 0o600)
    assert install("one\n")["changed"] is False
    install.path.chmod(0o644)
    assert install("one\n")["changed"] is True
    assert install.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in install.path.parent.iterdir()] == ["shop.conf"]


def test_a_link_is_replaced_and_not_followed(install, tmp_path):
    install.path.parent.mkdir()
    install.path.symlink_to(tmp_path / "elsewhere")
    assert install("one\n")["files"] == [str(install.path)]
    assert (install.path.is_symlink(), install.path.read_text()) == (False, "one\n")
    assert not (tmp_path / "elsewhere").exists()


def test_check_mode_changes_nothing_and_shows_the_difference(install, tmp_path):
    found = install("one\n", check=True, name="shop")
    assert (found["changed"], found["diff"][0]["after"]) == (True, "one\n")
    assert [path.name for path in tmp_path.iterdir()] == ["wanted.json"]


def test_a_file_that_is_not_valid_replaces_nothing(install):
    file = ME | {"dest": str(install.path), "mode": "0644", "secret": False, "validate": "grep -q right %s"}
    install(files=[file | {"content": "right\n"}])
    found = install(files=[file | {"content": "wrong\n"}])
    assert "was not changed, as its new content is not valid" in found["msg"]
    assert install.path.read_text() == "right\n"
    assert [path.name for path in install.path.parent.iterdir()] == ["shop.conf"]


def test_a_state_is_changed_until_it_is_recorded_as_applied(install, tmp_path):
    """Also in a later run, where an earlier one ended before its handlers."""
    watched = tmp_path / "watched"
    state = {"name": "shop", "watch": [str(watched)]}
    assert install("one\n", **state)["changed"] is True
    found = install("one\n", **state)
    assert (found["changed"], found["files"]) == (True, [])
    assert install(name="shop", applied=True)["changed"] is True
    assert install("one\n", **state)["changed"] is False
    watched.write_text("new")
    assert install("one\n", **state)["changed"] is True
    install(name="shop", applied=True)
    assert install("one\n", **state)["changed"] is False


def test_a_change_by_hand_that_is_undone_has_to_be_applied(install):
    state = {"name": "shop"}
    install("one\n", **state)
    install(name="shop", applied=True)
    install.path.write_text("by hand\n")
    assert install("one\n", **state)["files"] == [str(install.path)]
    assert install("one\n", **state)["changed"] is True
    install(name="shop", applied=True)
    assert install("one\n", **state)["changed"] is False


def test_a_removal_is_part_of_the_state(install, tmp_path):
    state, other = {"name": "shop"}, tmp_path / "other.conf"
    install("one\n", **state)
    install(name="shop", applied=True)
    other.touch()
    assert install("one\n", absent=[str(other)], **state)["files"] == [str(other)]
    assert install("one\n", absent=[str(other)], **state)["changed"] is True
    install(name="shop", applied=True)
    assert install("one\n", absent=[str(other)], **state)["changed"] is False


def test_a_file_that_a_state_no_longer_has_changes_nothing(install, tmp_path):
    watched = tmp_path / "watched"
    watched.touch()
    install("one\n", name="shop", watch=[str(watched)])
    install(name="shop", applied=True)
    assert install("one\n", name="shop")["changed"] is False


def test_the_empty_record_of_an_earlier_version_stands_for_older_files(install, tmp_path):
    install("one\n")
    (tmp_path / "states").mkdir()
    (tmp_path / "states/shop").touch()
    assert install("one\n", name="shop")["changed"] is False
    os.utime(install.path)
    assert install("one\n", name="shop")["changed"] is True
    assert install("one\n", name="shop")["changed"] is True


def test_absent_files_are_removed(install):
    install.path.parent.mkdir()
    install.path.touch()
    absent = [str(install.path), f"{install.path}.never"]
    assert install(absent=absent)["files"] == [str(install.path)]
    assert install(absent=absent)["changed"] is False


FILES = {
    "shop/shop.conf.j2": "{{ ansible_managed | comment }}\nname = {{ shop_name }}\n",
    "shop/static.conf": "{{ not a template }}\n",
    "shop/conf.d/one.conf.j2": "one\n",
    "shop/conf.d/two.conf": "two\n",
    "shop/part.conf.j2": "part {{ part.name }} of {{ part.size }}\n",
}


def play(infra, *tasks):
    """What each task returned, and the whole output."""
    for name, text in FILES.items():
        (infra / name).parent.mkdir(parents=True, exist_ok=True)
        (infra / name).write_text(text)
    (infra / "ansible").mkdir()
    tasks = [
        {"name": f"Task {number}", "server_files": ME | task, "ignore_errors": True}
        for number, task in enumerate(tasks)
    ]
    play = {"hosts": "localhost", "gather_facts": False, "vars": {"shop_name": "Pergola"}, "tasks": tasks}
    (infra / "ansible/play.yml").write_text(yaml.safe_dump([play]))
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", "localhost,", "-c", "local", infra / "ansible/play.yml", "--diff", "-vvv"],
        cwd=ROOT,
        env=os.environ
        | {"ANSIBLE_STRATEGY": "linear", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
        | {"ANSIBLE_PYTHON_INTERPRETER": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "\n{\n" in done.stdout, said
    found = json.loads(done.stdout[done.stdout.index("\n{\n") :])["plays"][0]["tasks"]
    return [task["hosts"]["localhost"] for task in found], said


def test_files_come_from_the_tree_by_its_rule(tmp_path):
    server = tmp_path / "server"
    parts = {"of": [{"name": "left", "size": 2}, {"name": "right", "size": 2}], "each": "part"}
    found, said = play(
        tmp_path / "infra",
        {"files": [{"path": "shop/shop.conf", "dest": f"{server}/shop.conf", "secret": True}]},
        {"files": [{"path": "shop/static.conf", "dest": f"{server}/static.conf", "mode": "0640"}]},
        {"files": [{"path": "shop/part.conf", "dest": f"{server}/{{name}}.conf"} | parts]},
        {"files": ["shop/none.conf"]},
        {"file": ["shop/shop.conf"]},
        {"files": [{"path": "shop/shop.conf", "owners": "root"}]},
    )
    assert (server / "shop.conf").read_text().endswith("\nname = Pergola\n")
    assert "name = Pergola" not in said
    assert (server / "static.conf").read_text() == "{{ not a template }}\n"
    assert (server / "static.conf").stat().st_mode & 0o777 == 0o640
    assert (server / "right.conf").read_text() == "part right of 2\n"
    assert found[2]["files"] == [f"{server}/left.conf", f"{server}/right.conf"]
    assert [one["msg"].removeprefix("Task failed: ") for one in found[3:]] == [
        "infra/ has no shop/none.conf",
        "server_files has no argument file",
        "server_files: shop/shop.conf has no owners",
    ]


def test_a_path_of_the_tree_is_the_path_on_the_server(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    from pergola.mirror import destination, sources

    assert destination("nginx/conf.d/log.conf") == "/etc/nginx/conf.d/log.conf"
    assert destination("nftables.conf") == "/etc/nftables.conf"
    assert destination("usr/local/sbin/appctl") == "/usr/local/sbin/appctl"
    assert [*sources(tmp_path, "shop/conf.d/")] == ["shop/conf.d/one.conf", "shop/conf.d/two.conf"]
    assert [*sources(tmp_path, "shop/static.conf").values()] == [tmp_path / "shop/static.conf"]
