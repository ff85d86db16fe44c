"""The actions of Ansible that call the package: their arguments, results and check mode, in a playbook."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from house import ROOT

HASH = "--hash=sha256:" + "0" * 64
UV = str(Path(sys.executable).with_name("uv"))


@pytest.fixture
def play(tmp_path):
    """Run tasks on this machine: what each returned, in their order."""

    def run(*tasks, strategy):
        results = tmp_path / "results.json"
        names = [f"result_{number}" for number in range(len(tasks))]
        tasks = [
            task | {"register": name, "ignore_errors": True} for task, name in zip(tasks, names, strict=True)
        ]
        content = "{{ [" + ", ".join(names) + "] | to_json }}"
        tasks.append({"ansible.builtin.copy": {"content": content, "dest": str(results), "mode": "0600"}})
        variables = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        (tmp_path / "play.yml").write_text(
            yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}])
        )
        command = [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml"]
        environment = os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_STRATEGY": strategy}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(results.read_text()), " ".join((done.stdout + done.stderr).split())

    return run


def bundle_of(source, made, **changes):
    given = {"root": str(source), "directory": "app", "requirements": "requirements.txt", "cache": str(made)}
    given |= {
        "manage": ["python", "manage.py"],
        "static": True,
        "static_url": "",
        "servers": [],
        "runtime": "",
    }
    given |= {"runtime_locks": [], "uv": UV, "python": "3.13", "python_index": ""}
    return {"release_bundle": given | changes}


@pytest.fixture
def source(tmp_path):
    source = tmp_path / "source"
    (source / "app").mkdir(parents=True)
    (source / "app/manage.py").write_text("print('hello')\n")
    (source / "requirements.txt").write_text(f"sqlparse==0.5.3 {HASH}\n")
    return source


@pytest.mark.parametrize("strategy", ["mitogen", "linear"])
def test_the_actions_of_a_deploy_return_what_they_made(play, source, tmp_path, strategy):
    made = tmp_path / "made"
    results, _ = play(
        bundle_of(source, made) | {"check_mode": True},
        bundle_of(source, made),
        bundle_of(source, made),
        bundle_of(source, made, directory="other"),
        bundle_of(source, made, requirements="other.txt"),
        {"release_bundle": {"root": str(source)}},
        {"deploy_lock": {"kind": "deploy"}, "check_mode": True},
        {"deploy_lock": {"holder": os.getpid()}},
        {"deploy_lock": {"holder": 4194305}},
        strategy=strategy,
    )
    assert [one["changed"] for one in results[:3]] == [True, True, False]
    assert results[0]["id"] == results[1]["id"]
    assert results[1]["path"] == f"{made}/bundles/{results[1]['id']}.tar"
    assert results[3]["msg"] == f"{source} has no other"
    assert results[4]["msg"].startswith(f"{source} has no other.txt")
    assert "missing required arguments: cache, directory, manage" in results[5]["msg"]
    assert results[6]["skipped"]
    assert not results[7]["failed"]
    assert results[8]["msg"].startswith("The connection that held the lock of localhost broke, so somebody")


def test_requirements_without_hashes_are_warned_of(play, source, tmp_path):
    (source / "requirements.txt").write_text("sqlparse==0.5.3\n")
    _, said = play(bundle_of(source, tmp_path / "made"), strategy="linear")
    assert "[WARNING]: requirements.txt does not pin each package by hash: resolved once" in said
