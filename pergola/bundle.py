"""What a deploy copies to a host: a source, its pinned packages, pergola_runtime, and build.json.

The host's program builds the release from it: infra/usr/local/lib/pergola/appctl/build.py, whose Recipe is
build.json. A release is named by its content, so that the same content is deployed once.
"""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pergola import requirements, sources
from pergola.paths import ROOT

KEPT = 5  # bundles in the cache


class BundleError(Exception):
    """Its message is one line that names what to do."""


@dataclass(frozen=True)
class Source:
    """What is deployed, and how."""

    root: Path
    directory: str  # of the project in it
    packages: str  # the file that lists its packages
    manage: list[str]  # what runs a management command
    static: bool  # whether static files are collected
    static_url: str  # that static files are collected for; empty if the project has its own
    servers: list[str]  # modules that its packages must bring
    runtime: Path | None  # the source of pergola_runtime; None without it
    runtime_locks: list[str]  # files of requirements/ that pergola_runtime brings
    uv: requirements.Uv


class Bundle(NamedTuple):
    path: Path
    id: str  # of the release, 12 hex digits
    warning: str  # that the project does not pin its packages; or empty
    changed: bool  # whether it was written, or would be in check mode


def digest_of(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def make(source: Source, cache: Path, check_mode: bool = False) -> Bundle:
    """Write the bundle into the directory `cache`, unless it is there. BundleError: why it cannot."""
    try:
        packed = sources.archive(
            source.root, [source.directory, source.packages], cache / "sources", check_mode
        )
        project = requirements.Project(source.root.resolve(), source.packages, source.uv)
        pinned = requirements.pin(project, cache / "requirements", check_mode)
    except (sources.MissingPathError, requirements.RefusedError, subprocess.TimeoutExpired) as error:
        raise BundleError(str(error)) from None
    locks = {name: ROOT / "requirements" / name for name in source.runtime_locks}
    runtime = runtime_digest(source.runtime, cache, check_mode)
    # releases with the same packages share their files
    packages = digest_of([pinned.digest, runtime, [lock.read_text() for lock in locks.values()]])
    recipe = {
        "packages": packages,
        "runtime_locks": [*locks],
        "servers": source.servers,
        "static": source.static,
        "directory": source.directory,
        "manage": source.manage,
    }
    release = digest_of([packed.digest, recipe, source.static_url])
    path = cache / "bundles" / f"{release}.tar"
    if path.exists() or check_mode:
        return Bundle(path, release, pinned.warning, not path.exists())
    wheel = build_wheel(source, runtime, cache) if source.runtime else None
    recipe |= {"revision": packed.revision, "wheel": wheel.name if wheel else ""}
    files = {"source.tar.gz": packed.archive, "requirements.txt": pinned.path, **locks}
    if wheel:
        files[wheel.name] = wheel
    write(path, files, recipe)
    for old in sorted(path.parent.glob("*.tar"), key=lambda one: one.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return Bundle(path, release, pinned.warning, changed=True)


def runtime_digest(runtime: Path | None, cache: Path, check_mode: bool) -> str:
    if runtime is None:
        return ""
    return sources.archive(
        runtime, ["pyproject.toml", "README.md", "src"], cache / "runtimes", check_mode
    ).digest


def build_wheel(source: Source, digest: str, cache: Path) -> Path:
    directory = cache / "wheels" / digest
    if not list(directory.glob("*.whl")):
        command = [source.uv.program, "build", "--quiet", "--wheel", f"--out-dir={directory}", source.runtime]
        environment = os.environ | {"UV_SYSTEM_CERTS": "true"}
        done = subprocess.run(  # noqa: S603
            [str(word) for word in command], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BundleError(f"pergola_runtime's wheel: {' '.join(done.stderr.split())}")
    return next(directory.glob("*.whl"))


def write(path: Path, files: dict[str, Path], recipe: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    with tarfile.open(aside, "w") as archive:
        for name, file in files.items():
            archive.add(file, name)
        described = json.dumps(recipe, indent=2).encode()
        entry = tarfile.TarInfo("build.json")
        entry.size = len(described)
        archive.addfile(entry, io.BytesIO(described))
    aside.rename(path)
