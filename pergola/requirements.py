"""From a project's requirements of any kind, a list of packages that are pinned by hash.

A project names its packages in a requirements.txt, or in a pyproject.toml with uv.lock, poetry.lock or no
lock beside it. What is pinned by hash is taken as it is; a lock is exported. What is not pinned is resolved
once and kept under a hash of its content, so that the same revision gets the same packages on every server
and at every deploy from this control machine.
"""

import hashlib
import os
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# list that is not read: the command that makes one that is
EXPORTS = {
    "Pipfile": "pipenv requirements --hash > requirements.txt",
    "Pipfile.lock": "pipenv requirements --hash > requirements.txt",
    "pdm.lock": "pdm export --format requirements --output requirements.txt",
    "setup.py": "uv pip compile --generate-hashes setup.py --output-file requirements.txt",
}
# as much of PEP 508 as tells a pinned requirement from others; uv reads the rest
REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\]\s*)?"
    r"(?:@\s*(?P<url>\S+)|\(?(?P<version>[^;@()]*)\)?)\s*(?:;.*)?"
)
SECONDS = 300  # for one command of uv


class RefusedError(Exception):
    """Its message is one line that names what to do."""


@dataclass(frozen=True)
class Uv:
    """The resolver, and what it resolves for."""

    program: Path
    python: str  # the version that the servers run
    index: str = ""  # address of a package index; empty for what uv is set up with


class Pinned(NamedTuple):
    path: Path
    digest: str  # 12 hex digits of SHA-256
    warning: str  # that the project does not pin its packages; or empty
    changed: bool  # whether a list was written, or would be in check mode


def lines_of(path: Path, seen: tuple[Path, ...] = ()) -> Iterator[str]:
    """The logical lines of a requirements file, with those of the files that it includes in their place."""
    if path in seen:
        raise RefusedError(f"{path.name} includes itself")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RefusedError(f"{seen[-1].name} includes {path.name}, which is not there") from None
    for joined_line in joined(text):
        line = re.sub(r"(^|\s)#.*", "", joined_line)
        included = re.fullmatch(r"(?:-r|--requirement)[ =]?(.+)", line)
        bounded = re.fullmatch(r"(?:-c|--constraint)[ =]?(.+)", line)
        if bounded and (path.parent / bounded[1]).is_file():
            # with a hash of its content, so that what was resolved under another one is not taken
            yield f"{line} {digest_of((path.parent / bounded[1]).read_text(encoding='utf-8'))}"
        elif included:
            yield from lines_of((path.parent / included[1]).resolve(), (*seen, path))
        elif line:
            yield line


def joined(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def unpinned(line: str) -> str | None:
    """Why a line may mean another file tomorrow; None if it is pinned."""
    if line.startswith(("-e", "--editable")):
        return "is a directory, which has no hash: take it out (the release runs from its source)"
    if line.startswith("-"):
        return None  # an option
    text, *hashes = line.split(" --hash=")
    requirement = REQUIREMENT.fullmatch(text)
    if not requirement:
        return "has no name and hash: give it as name==version, from a package index"
    if requirement["url"]:
        return None if hashes else "has no hash: give it as name==version, from a package index"
    exact = re.fullmatch(r"={2,3}\s*[^\s,*]+\s*", requirement["version"])
    return None if exact and hashes else "is not pinned by hash"


def name_of(line: str) -> str:
    """The package's name in its normal form; an option as it is."""
    requirement = REQUIREMENT.match(line)
    return re.sub(r"[-_.]+", "-", requirement["name"]).lower() if requirement else line


def dependencies(pyproject: dict[str, Any]) -> dict[str, str]:
    """What [project] asks for: {name: requirement}."""
    asked: list[str] = pyproject.get("project", {}).get("dependencies", [])
    return {name_of(one): one for one in asked}


def from_poetry(lock: Path) -> Iterator[str]:
    content = tomllib.loads(lock.read_text(encoding="utf-8"))
    if content.get("metadata", {}).get("lock-version", "0") < "2.1":
        raise RefusedError(
            "poetry.lock was written by Poetry 1, and does not say which packages are for development: run "
            "`poetry lock` with Poetry 2, or `poetry export --output requirements.txt` and name that file"
        )
    for package in content["package"]:
        if "main" not in package["groups"] or package["optional"]:
            continue
        source = package.get("source", {}).get("type", "legacy")
        if source != "legacy" or not package["files"]:
            where = f"{package['name']} of poetry.lock is a {source}"
            raise RefusedError(f"{where}: take it from a package index")
        markers = package.get("markers", "")
        if isinstance(markers, dict):  # one for each group
            markers = markers.get("main", "")
        hashes = " ".join(f"--hash={file['hash']}" for file in package["files"])
        yield f"{package['name']}=={package['version']}" + (f" ; {markers}" if markers else "") + f" {hashes}"


class Project:
    def __init__(self, root: Path, name: str, uv: Uv) -> None:
        self.root = root
        self.name = name  # of the list of packages, relative to the root
        self.file = root / name
        self.uv = uv

    def run(self, *arguments: str) -> tuple[bool, str]:
        """Run uv: (whether it succeeded, what it printed or its error in one line)."""
        environment = {
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_CUSTOM_COMPILE_COMMAND": "a deploy",
            "UV_SYSTEM_CERTS": "true",
        }
        if self.uv.index:
            environment["UV_DEFAULT_INDEX"] = self.uv.index
        done = subprocess.run(  # noqa: S603
            [self.uv.program, "--quiet", "--no-progress", *arguments],
            cwd=self.file.parent,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode == 0, done.stdout if done.returncode == 0 else " ".join(done.stderr.split())

    def pinned(self) -> tuple[list[str], bool]:
        """The lines of the list, and whether they have yet to be resolved."""
        if not self.file.is_file():
            raise RefusedError(f"{self.root} has no {self.name}: app_requirements names the list of packages")
        if self.file.name in EXPORTS:
            raise RefusedError(
                f"{self.name} is not read: run `{EXPORTS[self.file.name]}`, and name requirements.txt"
            )
        if self.file.suffix == ".txt":
            lines = list(lines_of(self.file))
            return lines, any(unpinned(line) for line in lines)
        if self.file.name not in ("pyproject.toml", "uv.lock", "poetry.lock"):
            raise RefusedError(
                f"{self.name} is neither a requirements .txt nor a pyproject.toml: name one of these"
            )
        pyproject = tomllib.loads(self.file.with_name("pyproject.toml").read_text(encoding="utf-8"))
        asked = dependencies(pyproject)
        uv_lock, poetry_lock = self.file.with_name("uv.lock"), self.file.with_name("poetry.lock")
        if uv_lock.exists():
            lines, fix = self.from_uv(), "uv lock"
        elif poetry_lock.exists():
            lines, fix = list(from_poetry(poetry_lock)), "poetry lock"
        elif not asked:
            raise RefusedError(f"{self.name} has no [project] dependencies and no lock: run `uv lock`")
        else:
            return list(asked.values()), True
        there = {name_of(line) for line in lines}
        for name in asked.keys() - there:
            raise RefusedError(f"{name} is in pyproject.toml and not in its lock: run `{fix}`")
        return lines, False

    def from_uv(self) -> list[str]:
        arguments = ["export", "--no-dev", "--no-emit-project", "--no-annotate", "--no-header"]
        well, said = self.run(*arguments, "--locked")
        if not well and "No interpreter found" in said:
            # a Python older than the project's: uv cannot tell whether the lock is current
            well, said = self.run(*arguments, "--frozen")
        if not well:
            raise RefusedError(f"uv.lock: {said}")
        return joined(said)

    def resolve(self, lines: Iterable[str]) -> list[str]:
        """Compile the file where it is, so that paths in it keep their meaning."""
        for line in lines:
            if line.startswith(("-e", "--editable", ".", "/", "file:")):
                raise RefusedError(f"{self.name}: {line} {unpinned(line) or 'has no hash'}")
        arguments = ["--universal", f"--python-version={self.uv.python}", "--generate-hashes"]
        well, said = self.run("pip", "compile", *arguments, "--no-annotate", "--no-header", self.file.name)
        if not well:
            raise RefusedError(f"{self.name} cannot be resolved for Python {self.uv.python}: {said}")
        return [line for line in lines if line.startswith("-") and "index" in line] + joined(said)


def check(lines: Iterable[str], name: str) -> list[str]:
    lines = [line for line in lines if not line.startswith(("-c", "--constraint"))]
    for line in lines:
        why = unpinned(line)
        if why:
            raise RefusedError(f"{name}: {line.split(' --hash=')[0]} {why}")
    if not lines:
        raise RefusedError(f"{name} names no package: a Django application needs django at least")
    return lines


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(text)
    aside.rename(path)


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def pin(project: Project, dest: Path, check_mode: bool = False) -> Pinned:
    """Write the project's list of pinned packages into the directory `dest`, unless it is there."""
    try:
        lines, loose = project.pinned()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, FileNotFoundError, KeyError) as error:
        raise RefusedError(f"{project.name} or its lock cannot be read: {error}") from None
    changed, warning = False, ""
    if loose:
        recipe = project.uv.python + project.name + "\n".join(lines)
        resolved = dest / f"resolved-{digest_of(recipe)}.txt"
        warning = (
            f"{project.name} does not pin each package by hash: resolved once, and kept in {resolved}. "
            f"For the same everywhere commit a lock: uv pip compile --generate-hashes {project.name}"
        )
        if not resolved.exists():
            text = "\n".join(check(project.resolve(lines), project.name)) + "\n"
            changed = True
            if check_mode:
                return Pinned(resolved, digest_of(text), warning, changed)
            write(resolved, text)
        lines = resolved.read_text().splitlines()
    text = "\n".join(check(lines, project.name)) + "\n"
    path = dest / f"{digest_of(text)}.txt"
    if not path.exists():
        changed = True
        if not check_mode:
            write(path, text)
    return Pinned(path, digest_of(text), warning, changed)
