"""Whatever a project names its packages by, a deploy gets a list that is pinned by hash, or one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from house import ROOT

from pergola import requirements

UV = requirements.Uv(Path(sys.executable).with_name("uv"), "3.13")
HASH = "--hash=sha256:" + "0" * 64
PYPROJECT = """\
[project]
name = "demo"
version = "1"
requires-python = "{python}"
dependencies = [{dependencies}]
[dependency-groups]
dev = ["iniconfig==2.3.0"]
"""
POETRY = """\
[[package]]
name = "sqlparse"
version = "0.5.3"
optional = false
groups = ["main", "dev"]
files = [{{file = "a.whl", hash = "sha256:{0}"}}, {{file = "a.tar.gz", hash = "sha256:{0}"}}]

[[package]]
name = "tzdata"
version = "2025.2"
optional = false
groups = ["main"]
markers = "sys_platform == \\"win32\\""
files = [{{file = "b.whl", hash = "sha256:{0}"}}]

[[package]]
name = "iniconfig"
version = "2.3.0"
optional = false
groups = ["dev"]
files = [{{file = "c.whl", hash = "sha256:{0}"}}]

[metadata]
lock-version = "2.1"
""".format("0" * 64)


class Source:
    def __init__(self, folder):
        self.root, self.dest = folder / "source", folder / "lists"
        self.root.mkdir()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def pin(self, file):
        return requirements.pin(requirements.Project(self.root, file, UV), self.dest)

    def listed(self, file):
        return self.pin(file)[0].read_text().splitlines()

    def refused(self, file):
        with pytest.raises(requirements.RefusedError) as refused:
            self.pin(file)
        message = str(refused.value)
        assert "\n" not in message
        return message


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path)


def test_a_list_with_hashes_is_taken_as_it_is_with_what_it_includes(source, offline):
    source.write(
        "requirements/base.txt", f"sqlparse==0.5.3 \\\n    {HASH} \\\n    {HASH}\n    # via django\n"
    )
    source.write(
        "requirements/app.txt", f"-r base.txt\n\nasgiref==3.8.1 ; python_version < '4' {HASH}  # why\n"
    )
    assert source.listed("requirements/app.txt") == [
        f"sqlparse==0.5.3 {HASH} {HASH}",
        f"asgiref==3.8.1 ; python_version < '4' {HASH}",
    ]
    _, _, warning, changed = source.pin("requirements/app.txt")
    assert not changed
    assert not warning


def test_a_list_without_hashes_is_resolved_once(source, request):
    source.write("requirements.txt", "sqlparse<0.5.3\n")
    path, digest, warning, _ = source.pin("requirements.txt")
    assert path.read_text().startswith("sqlparse==0.5.2 --hash=sha256:")
    assert "uv pip compile --generate-hashes requirements.txt" in warning
    request.getfixturevalue("offline")  # as if the index had something new
    assert source.pin("requirements.txt")[1] == digest


def test_a_change_of_the_list_or_its_constraints_is_resolved_anew(source):
    source.write("bounds.txt", "sqlparse<0.5.3\n")
    source.write("requirements.txt", "-c bounds.txt\nsqlparse\n")
    assert source.listed("requirements.txt")[0].startswith("sqlparse==0.5.2 ")
    source.write("bounds.txt", "sqlparse<0.5.2\n")
    assert source.listed("requirements.txt")[0].startswith("sqlparse==0.5.1 ")


def lock(source, *dependencies, python=">=3.10"):
    names = ", ".join(f'"{name}"' for name in dependencies)
    source.write("pyproject.toml", PYPROJECT.format(dependencies=names, python=python))
    command = [UV.program, "lock", "--quiet"]
    subprocess.run(command, cwd=source.root, env=os.environ | {"UV_SYSTEM_CERTS": "true"}, check=True)


def test_the_lock_of_uv_is_exported_less_what_is_for_development(source):
    lock(source, "sqlparse==0.5.2")
    lines = source.listed("pyproject.toml")
    assert [line.split()[0] for line in lines] == ["sqlparse==0.5.2"]
    assert "--hash=sha256:" in lines[0]
    source.write("pyproject.toml", PYPROJECT.format(dependencies='"sqlparse==0.5.1"', python=">=3.10"))
    assert "uv lock" in source.refused("pyproject.toml")
    # as on a control machine whose Python is older than the servers'
    text = (source.root / "uv.lock").read_text()
    source.write("uv.lock", text.replace('requires-python = ">=3.10"', 'requires-python = ">=3.99"'))
    source.write("pyproject.toml", PYPROJECT.format(dependencies='"sqlparse==0.5.2"', python=">=3.99"))
    assert source.listed("uv.lock") == lines


def test_the_lock_of_poetry_is_read_less_what_is_for_development(source, offline):
    source.write("pyproject.toml", PYPROJECT.format(dependencies='"sqlparse (>=0.5)"', python=">=3.10"))
    source.write("poetry.lock", POETRY)
    assert source.listed("pyproject.toml") == [
        f"sqlparse==0.5.3 {HASH} {HASH}",
        f'tzdata==2025.2 ; sys_platform == "win32" {HASH}',
    ]


@pytest.mark.parametrize(
    ("files", "file", "message"),
    [
        ({}, "requirements.txt", "has no requirements.txt: app_requirements names the list of packages"),
        ({"requirements.txt": "# nothing yet\n"}, "requirements.txt", "django at least"),
        (
            {"requirements.txt": "-e .\n"},
            "requirements.txt",
            "take it out (the release runs from its source)",
        ),
        ({"requirements.txt": "./vendored\n"}, "requirements.txt", "give it as name==version"),
        (
            {"requirements.txt": "-r other.txt\n"},
            "requirements.txt",
            "includes other.txt, which is not there",
        ),
        ({"requirements.txt": "-r requirements.txt\n"}, "requirements.txt", "includes itself"),
        (
            {"requirements.txt": "no such == thing\n"},
            "requirements.txt",
            "cannot be resolved for Python 3.13",
        ),
        ({"Pipfile.lock": "{}"}, "Pipfile.lock", "pipenv requirements --hash > requirements.txt"),
        ({"environment.yml": ""}, "environment.yml", "neither a requirements .txt nor a pyproject.toml"),
        ({"pyproject.toml": "[project]\nname = 'a'\n"}, "pyproject.toml", "run `uv lock`"),
        ({"pyproject.toml": "[project\n"}, "pyproject.toml", "cannot be read"),
        (
            {
                "pyproject.toml": PYPROJECT.format(dependencies='"django"', python=">=3"),
                "poetry.lock": POETRY,
            },
            "pyproject.toml",
            "django is in pyproject.toml and not in its lock: run `poetry lock`",
        ),
        (
            {"pyproject.toml": "", "poetry.lock": POETRY.replace('"2.1"', '"2.0"')},
            "poetry.lock",
            "run `poetry lock` with Poetry 2",
        ),
        (
            {
                "pyproject.toml": "",
                "poetry.lock": POETRY.replace(
                    "[metadata]", "[package.source]\ntype='git'\n[metadata]"
                ).replace('groups = ["dev"]', 'groups = ["main"]'),
            },
            "poetry.lock",
            "iniconfig of poetry.lock is a git: take it from a package index",
        ),
    ],
)
def test_what_cannot_be_pinned_is_refused_in_one_line_with_the_fix(source, files, file, message):
    for name, text in files.items():
        source.write(name, text)
    assert message in source.refused(file)


def test_the_sample_gets_its_own_lock(tmp_path, offline):
    project = requirements.Project(ROOT, "requirements/app.txt", UV)
    path, _, warning, _ = requirements.pin(project, tmp_path)
    assert not warning
    lines = (ROOT / "requirements/app.txt").read_text().splitlines()
    words = [word for line in lines if line.strip()[:1] != "#" for word in line.removesuffix("\\").split()]
    assert path.read_text().split() == words


def test_check_mode_says_what_would_be_written_and_writes_nothing(source, offline):
    source.write("requirements.txt", f"sqlparse==0.5.3 {HASH}\n")
    pinned = requirements.pin(requirements.Project(source.root, "requirements.txt", UV), source.dest, True)
    assert pinned.changed
    assert not source.dest.exists()
