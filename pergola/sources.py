"""Archives of sources, named by their content: their name tells whether there is anything new to deploy."""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple


class MissingPathError(Exception):
    pass


class Archive(NamedTuple):
    archive: Path
    digest: str  # 12 hex digits of SHA-256
    revision: str  # `git describe`; empty outside a git checkout
    changed: bool  # whether it was written, or would be in check mode


def git(root: Path, *arguments: str) -> str | None:
    """Git's output; None without git, and if it fails, as outside a checkout."""
    if not shutil.which("git"):
        return None
    # safe.directory: root may read a person's checkout
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout if done.returncode == 0 else None


def files(root: Path, paths: list[str]) -> list[str]:
    """In a git checkout the files that git tracks or would track; elsewhere all that are not hidden."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths)
    if listed is not None:
        return sorted({name for name in listed.split("\0") if name and (root / name).is_file()})
    found = set()
    for path in paths:
        top = root / path
        for file in [top] if top.is_file() else top.rglob("*"):
            name = file.relative_to(root)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
            if file.is_file() and not hidden:
                found.add(str(name))
    return sorted(found)


def pack(root: Path, names: list[str]) -> bytes:
    """A gzipped tar file that has the same bytes for the same content: no owners, no times."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in names:
            entry = archive.gettarinfo(root / name, arcname=name)
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = "root"
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            if entry.isreg():
                with (root / name).open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)
    return packed.getvalue()


def archive(root: Path, paths: list[str], dest: Path, check_mode: bool = False) -> Archive:
    """Pack these paths of `root` into a file of the directory `dest`, unless it has one with that content."""
    for path in paths:
        if not (root / path).exists():
            raise MissingPathError(f"{root} has no {path}")
    content = pack(root, files(root, paths))
    digest = hashlib.sha256(content).hexdigest()[:12]
    file = dest / f"{digest}.tar.gz"
    changed = not file.exists()
    if changed and not check_mode:
        dest.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".{os.getpid()}")
        aside.write_bytes(content)
        aside.rename(file)
    revision = (git(root, "describe", "--always", "--dirty", "--tags") or "").strip()
    return Archive(file, digest, revision, changed)
