"""A release is named by its content: the same source gives the same archive, whoever packs it and when."""

import os
import subprocess
import tarfile

import pytest

from pergola import sources


def pack(root, *paths, dest):
    return sources.archive(root, list(paths), dest)


def names(archive):
    with tarfile.open(archive) as packed:
        return sorted(packed.getnames())


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    (root / "app").mkdir(parents=True)
    (root / "app/manage.py").write_text("print('hello')\n")
    (root / "app/secret.sqlite3").write_text("ignored")
    (root / ".gitignore").write_text("*.sqlite3\n")
    (root / "notes.txt").write_text("outside the paths\n")
    return root


@pytest.fixture
def checkout(source):
    subprocess.run(["git", "init", "-q", source], check=True)
    subprocess.run(["git", "-C", source, "add", "app/manage.py"], check=True)
    return source


def test_the_same_content_is_the_same_release_at_another_time(checkout, tmp_path):
    first = pack(checkout, "app", dest=tmp_path / "a")
    os.utime(checkout / "app/manage.py", (1, 1))
    second = pack(checkout, "app", dest=tmp_path / "b")
    assert first.digest == second.digest
    assert first.archive.read_bytes() == second.archive.read_bytes()
    assert pack(checkout, "app", dest=tmp_path / "a").changed is False


def test_another_content_is_another_release(checkout, tmp_path):
    before = pack(checkout, "app", dest=tmp_path).digest
    (checkout / "app/manage.py").write_text("print('changed')\n")
    assert pack(checkout, "app", dest=tmp_path).digest != before


def test_files_that_git_would_track_are_taken_and_those_it_ignores_are_not(checkout, tmp_path):
    (checkout / "app/new.py").write_text("")
    assert names(pack(checkout, "app", dest=tmp_path).archive) == ["app/manage.py", "app/new.py"]


def test_a_machine_without_git_takes_what_a_directory_without_git_gives(source, tmp_path, monkeypatch):
    with_git = pack(source, "app", dest=tmp_path / "one.tar.gz").archive
    monkeypatch.setenv("PATH", "/nowhere")
    assert names(pack(source, "app", dest=tmp_path / "two.tar.gz").archive) == names(with_git)


def test_a_directory_without_git_is_taken_but_for_hidden_files(source, tmp_path):
    (source / "app/.hidden").write_text("")
    packed = names(pack(source, "app", dest=tmp_path).archive)
    assert packed == ["app/manage.py", "app/secret.sqlite3"]


def test_a_path_that_is_not_there_is_named(source, tmp_path):
    with pytest.raises(sources.MissingPathError) as refused:
        pack(source, "app", "requirements/app.txt", dest=tmp_path)
    assert str(refused.value) == f"{source} has no requirements/app.txt"


def test_check_mode_says_what_would_be_written_and_writes_nothing(source, tmp_path):
    packed = sources.archive(source, ["app"], tmp_path / "archives", check_mode=True)
    assert packed.changed
    assert not packed.archive.parent.exists()
