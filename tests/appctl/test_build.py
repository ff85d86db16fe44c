"""A release is built from a bundle, by programs that PATH finds; what fails leaves nothing behind."""

import json
import tarfile

import pytest

RECIPE = {
    "revision": "r" * 40,
    "packages": "p1",
    "runtime_locks": ["runtime.txt", "settings.txt"],
    "wheel": "pergola_runtime-1.whl",
    "servers": [],
    "static": True,
    "directory": "app",
    "manage": ["python", "manage.py"],
}
# makes what the real one would make
UV = """\
#!/bin/sh
echo "uv $*" >>"${0%/*}/asked"
[ "$1" != venv ] || { mkdir -p venv/bin && ln -s /bin/true venv/bin/python; }
[ ! -e "${0%/*}/uv-fails" ] || { echo "no such package" >&2; exit 1; }
"""


@pytest.fixture
def builder(host):
    """A host with uv and systemd-run; the control machine's bundle is at `bundle`."""
    path = host.directory / "bin/uv"
    path.write_text(UV)
    path.chmod(0o755)
    host.program("systemd-run")
    return host


def bundle(host, **changes):
    packed = host.directory / "packed"
    (packed / "app").mkdir(parents=True, exist_ok=True)
    (packed / "app/manage.py").write_text("print('hello')\n")
    with tarfile.open(packed / "source.tar.gz", "w:gz") as archive:
        archive.add(packed / "app", "app")
    (packed / "build.json").write_text(json.dumps(RECIPE | changes))
    (packed / "requirements.txt").write_text("django==5.2\n")
    path = host.directory / "bundle.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("source.tar.gz", "build.json", "requirements.txt"):
            archive.add(packed / name, name)
    return path


def test_a_release_is_built_and_complete(builder):
    done = builder.run("build", "one", bundle(builder))
    assert (done.returncode, done.stdout) == (0, "built one\n"), done.stderr
    directory = builder.home / "releases/one"
    facts = json.loads((directory / "release.json").read_text())
    assert (facts["id"], facts["revision"], facts["packages"]) == ("one", "r" * 40, "p1")
    assert (directory / "source/app/manage.py").exists()
    assert list(directory.glob("source/app/__pycache__/*.pyc"))
    assert builder.asked() == [
        "uv venv --quiet --relocatable --python=/usr/bin/python3 venv",
        "uv pip install --quiet --require-hashes --requirements=runtime.txt --requirements=settings.txt",
        "uv pip install --quiet --no-deps ./pergola_runtime-1.whl",
        "uv pip install --quiet --require-hashes --no-deps --requirements=requirements.txt",
        "uv pip check",
        "systemd-run --quiet --collect --wait --pipe --unit=app-collectstatic --nice=10"
        f" --property=ReadWritePaths={directory}/source {directory}/static"
        f" --setenv=STATIC_ROOT={directory}/static"
        f" --working-directory={directory}/source/app {directory}/venv/bin/python manage.py collectstatic"
        " --no-input --verbosity=0",
    ]
    assert directory.stat().st_mode & 0o027 == 0
    assert (directory / "static").stat().st_mode & 0o005 == 0o005


def test_a_release_that_is_here_is_not_built_again(builder):
    builder.release("one")
    for arguments in (["one", "no-bundle"], ["one", "--dry-run"]):
        done = builder.run("build", *arguments)
        assert (done.returncode, done.stdout) == (0, "")
    assert builder.asked() == []


def test_a_dry_run_says_that_it_has_to_be_built(builder):
    assert builder.run("build", "one", "--dry-run").stdout == "one has to be built\n"
    assert not (builder.home / "releases/one").exists()


def test_a_disk_without_space_is_refused_before_anything_is_built(builder):
    done = builder.run("build", "one", "--dry-run", "--free-mb", "999999999")
    assert done.returncode == 1
    assert "a release needs 999999999 MB and 20000 files: free some space" in done.stderr
    assert not (builder.home / "releases/one").exists()


def test_releases_with_the_same_packages_share_files(builder):
    other = builder.release("other")
    (other / "release.json").write_text(json.dumps({"id": "other", "packages": "p1"}))
    assert builder.run("build", "one", bundle(builder, static=False)).returncode == 0
    assert builder.asked() == []
    shared = builder.home / "releases/one/venv/bin/gunicorn"
    assert shared.samefile(other / "venv/bin/gunicorn")


def test_without_the_runtime_only_the_applications_packages_are_installed(builder):
    done = builder.run("build", "one", bundle(builder, wheel="", runtime_locks=[], static=False))
    assert done.returncode == 0
    assert len([one for one in builder.asked() if one.startswith("uv pip install")]) == 1


def test_a_server_that_the_application_lacks_is_named(builder):
    done = builder.run("build", "one", bundle(builder, servers=["gunicorn", "uvicorn_worker"]))
    assert done.returncode == 1
    assert "it lacks gunicorn and uvicorn-worker" in done.stderr
    assert not (builder.home / "releases/one").exists()


def test_a_build_that_fails_leaves_nothing_and_says_why(builder):
    (builder.home / "releases/one/source").mkdir(parents=True)  # left by one that was interrupted
    (builder.directory / "bin/uv-fails").touch()
    done = builder.run("build", "one", bundle(builder))
    assert done.returncode == 1
    assert done.stderr == "appctl build: uv venv: no such package\n"
    assert not (builder.home / "releases/one").exists()


@pytest.mark.parametrize("recipe", [{"static": "yes"}, {"manage": "python manage.py"}])
def test_a_bundle_of_another_version_is_refused(builder, recipe):
    done = builder.run("build", "one", bundle(builder, **recipe))
    assert done.returncode == 1
    assert "build.json is from another version of Pergola" in done.stderr


def test_a_damaged_bundle_is_refused(builder):
    path = builder.directory / "bundle.tar"
    path.write_text("not an archive")
    done = builder.run("build", "one", path)
    assert done.returncode == 1
    assert done.stderr.startswith("appctl build: file could not be opened")
    assert list((builder.home / "releases").iterdir()) == []
