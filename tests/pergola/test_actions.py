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


@pytest.mark.parametrize("strategy", ["mitogen", "linear"])
def test_the_actions_of_a_deploy_return_what_they_made(play, tmp_path, strategy):
    source, made = tmp_path / "source", tmp_path / "made"
    (source / "app").mkdir(parents=True)
    (source / "app/manage.py").write_text("print('hello')\n")
    (source / "requirements.txt").write_text(f"sqlparse==0.5.3 {HASH}\n")
    archive = {"root": str(source), "paths": ["app"], "dest": str(made)}
    pinned = {"root": str(source), "file": "requirements.txt", "dest": str(made), "uv": UV, "python": "3.13"}
    pinned |= {"index": ""}
    results, _ = play(
        {"source_archive": archive, "check_mode": True},
        {"source_archive": archive},
        {"source_archive": archive},
        {"source_archive": archive | {"paths": ["other"]}},
        {"pinned_requirements": pinned, "check_mode": True},
        {"pinned_requirements": pinned},
        {"pinned_requirements": pinned},
        {"pinned_requirements": pinned | {"file": "other.txt"}},
        {"pinned_requirements": {"root": str(source)}},
        {"deploy_lock": {"kind": "deploy"}, "check_mode": True},
        {"deploy_lock": {"holder": os.getpid()}},
        {"deploy_lock": {"holder": 4194305}},
        strategy=strategy,
    )
    assert [one["changed"] for one in results[:3]] == [True, True, False]
    assert results[1]["archive"] == f"{made}/{results[0]['digest']}.tar.gz"
    assert results[3]["msg"] == f"{source} has no other"
    assert [one["changed"] for one in results[4:7]] == [True, True, False]
    assert Path(results[5]["path"]).read_text() == f"sqlparse==0.5.3 {HASH}\n"
    assert results[5]["digest"] == results[4]["digest"]
    assert results[5]["warning"] == ""
    assert results[7]["msg"].startswith(f"Requirements: {source} has no other.txt: app_requirements names")
    assert "missing required arguments: dest, file, index, python, uv" in results[8]["msg"]
    assert results[9]["skipped"]
    assert not results[10]["failed"]
    assert results[11]["msg"].startswith("The connection that held the lock of localhost broke, so somebody")


def test_requirements_without_hashes_are_warned_of(play, tmp_path):
    (tmp_path / "requirements.txt").write_text("sqlparse==0.5.3\n")
    pinned = {"root": str(tmp_path), "file": "requirements.txt", "dest": str(tmp_path / "made"), "uv": UV}
    (result,), said = play(
        {"pinned_requirements": pinned | {"python": "3.13", "index": ""}}, strategy="linear"
    )
    assert result["warning"].startswith("requirements.txt does not pin each package by hash: resolved once")
    assert f"[WARNING]: {result['warning']}" in said
