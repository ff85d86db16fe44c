"""A bundle has all that a host builds a release from, and is named by its content."""

import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from house import ROOT

from pergola import bundle
from pergola.requirements import Uv

HASH = "--hash=sha256:" + "0" * 64


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    (root / "app").mkdir(parents=True)
    (root / "app/manage.py").write_text("print('hello')\n")
    (root / "requirements.txt").write_text(f"sqlparse==0.5.3 {HASH}\n")
    return bundle.Source(
        root=root,
        directory="app",
        packages="requirements.txt",
        manage=["python", "manage.py"],
        static=True,
        static_url="",
        servers=[],
        runtime=None,
        runtime_locks=[],
        uv=Uv(Path(sys.executable).with_name("uv"), "3.13"),
    )


def content(path):
    with tarfile.open(path) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}


def test_it_has_the_source_the_packages_and_the_recipe(source, tmp_path):
    made = bundle.make(source, tmp_path / "cache")
    found = content(made.path)
    assert [*found] == ["source.tar.gz", "requirements.txt", "build.json"]
    recipe = json.loads(found["build.json"])
    assert (recipe["directory"], recipe["manage"], recipe["wheel"]) == ("app", ["python", "manage.py"], "")


def test_its_recipe_is_what_the_host_reads(source, tmp_path):
    sys.path.insert(0, str(ROOT / "infra/usr/local/lib/pergola"))
    from appctl.build import Recipe

    recipe = json.loads(content(bundle.make(source, tmp_path / "cache").path)["build.json"])
    assert set(recipe) == set(Recipe.__dataclass_fields__)


def test_with_the_runtime_it_has_its_wheel_and_locks(source, tmp_path):
    source = replace(source, runtime=ROOT / "runtime", runtime_locks=["runtime.txt"])
    found = content(bundle.make(source, tmp_path / "cache").path)
    (wheel,) = [name for name in found if name.endswith(".whl")]
    assert wheel.startswith("pergola_runtime-")
    assert found["runtime.txt"] == (ROOT / "requirements/runtime.txt").read_bytes()
    assert json.loads(found["build.json"])["wheel"] == wheel


def test_the_same_content_has_the_same_name(source, tmp_path):
    first = bundle.make(source, tmp_path / "cache")
    again = bundle.make(source, tmp_path / "cache")
    assert (again.id, first.changed, again.changed) == (first.id, True, False)
    assert bundle.make(source, tmp_path / "other").id == first.id
    (source.root / "app/manage.py").write_text("print('another')\n")
    assert bundle.make(source, tmp_path / "cache").id != first.id


@pytest.mark.parametrize(
    "changes",
    [
        {"static": False},
        {"static_url": "/files/"},
        {"manage": ["python", "-m", "django"]},
        {"servers": ["gunicorn"]},
    ],
)
def test_another_recipe_is_another_release(source, tmp_path, changes):
    first = bundle.make(source, tmp_path / "cache")
    assert bundle.make(replace(source, **changes), tmp_path / "cache").id != first.id


def test_check_mode_names_the_release_and_writes_nothing(source, tmp_path):
    checked = bundle.make(source, tmp_path / "cache", check_mode=True)
    assert checked.changed
    assert not (tmp_path / "cache").exists()
    assert bundle.make(source, tmp_path / "cache").id == checked.id


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"directory": "other"}, "has no other"), ({"packages": "other.txt"}, "has no other.txt")],
)
def test_what_is_not_there_is_named(source, tmp_path, changes, says):
    with pytest.raises(bundle.BundleError, match=says):
        bundle.make(replace(source, **changes), tmp_path / "cache")
