#!/usr/bin/python
"""Ansible module: from a project's requirements of any kind, a list of packages that are pinned by hash.

Arguments: ``root``, the source's directory; ``file``, relative to it: a requirements.txt, or a pyproject.toml
with uv.lock, poetry.lock or no lock beside it; ``dest``, the directory of lists; ``uv``, the program;
``python``, the version that the servers run.

What is pinned by hash already is taken as it is; a lock is exported. What is not pinned is resolved once and
kept in ``dest`` by its content's name, so that the same revision gets the same packages on every server and
at every deploy from this control machine; ``warning`` says so.

Returns ``path``, ``digest`` (12 hex digits of SHA-256), ``warning`` (or empty) and ``changed`` (a list was
written). Fails in one line that names what to do.
"""

import hashlib
import os
import re
import subprocess
import tomllib
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

EXPORTS = {
    "Pipfile": "pipenv requirements --hash > requirements.txt",
    "Pipfile.lock": "pipenv requirements --hash > requirements.txt",
    "pdm.lock": "pdm export --format requirements --output requirements.txt",
    "setup.py": "uv pip compile --generate-hashes setup.py --output-file requirements.txt",
}
# `packaging` would know better, but Mitogen hands no module a library of the control machine's
REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\]\s*)?"
    r"(?:@\s*(?P<url>\S+)|\(?(?P<version>[^;@()]*)\)?)\s*(?:;.*)?"
)
SECONDS = 300


class RefusedError(Exception):
    pass


def lines_of(path, seen=()):
    """The logical lines of a requirements file, those of the files that it includes in their place."""
    if path in seen:
        raise RefusedError(f"{path.name} includes itself")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RefusedError(f"{seen[-1].name} includes {path.name}, which is not there") from None
    for line in joined(text):
        line = re.sub(r"(^|\s)#.*", "", line)
        included = re.fullmatch(r"(?:-r|--requirement)[ =]?(.+)", line)
        bounded = re.fullmatch(r"(?:-c|--constraint)[ =]?(.+)", line)
        if bounded and (path.parent / bounded[1]).is_file():
            # with its content, lest what was resolved under another one be taken
            yield f"{line} {digest_of((path.parent / bounded[1]).read_text(encoding='utf-8'))}"
        elif included:
            yield from lines_of((path.parent / included[1]).resolve(), (*seen, path))
        elif line:
            yield line


def joined(text):
    return [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def unpinned(line):
    """Why a line is not the name of one thing for ever; None if it is."""
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


def name_of(line):
    requirement = REQUIREMENT.match(line)
    return re.sub(r"[-_.]+", "-", requirement["name"]).lower() if requirement else line


def dependencies(pyproject):
    """The names that [project] asks for."""
    asked = pyproject.get("project", {}).get("dependencies", [])
    return {name_of(one): one for one in asked}


def from_poetry(lock, pyproject):
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
    def __init__(self, root, file, uv, python):
        self.root, self.file, self.uv, self.python = root, root / file, uv, python
        self.name = file

    def run(self, *arguments):
        done = subprocess.run(  # noqa: S603
            [self.uv, "--quiet", "--no-progress", *arguments],
            cwd=self.file.parent,
            env=os.environ | {"UV_PYTHON_DOWNLOADS": "never", "UV_CUSTOM_COMPILE_COMMAND": "a deploy"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode == 0, done.stdout if done.returncode == 0 else " ".join(done.stderr.split())

    def pinned(self):
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
            lines, fix = list(from_poetry(poetry_lock, pyproject)), "poetry lock"
        elif not asked:
            raise RefusedError(f"{self.name} has no [project] dependencies and no lock: run `uv lock`")
        else:
            return list(asked.values()), True
        there = {name_of(line) for line in lines}
        for name in asked.keys() - there:
            raise RefusedError(f"{name} is in pyproject.toml and not in its lock: run `{fix}`")
        return lines, False

    def from_uv(self):
        arguments = ["export", "--no-dev", "--no-emit-project", "--no-annotate", "--no-header"]
        well, said = self.run(*arguments, "--locked")
        if not well and "No interpreter found" in said:
            # a Python older than the project's: uv cannot say whether the lock is current
            well, said = self.run(*arguments, "--frozen")
        if not well:
            raise RefusedError(f"uv.lock: {said}")
        return joined(said)

    def resolve(self, lines):
        """Compiled as a file beside the project's own, so that paths in it mean the same."""
        for line in lines:
            if line.startswith(("-e", "--editable", ".", "/", "file:")):
                raise RefusedError(f"{self.name}: {line} {unpinned(line) or 'has no hash'}")
        arguments = ["--universal", f"--python-version={self.python}", "--generate-hashes", "--no-annotate"]
        well, said = self.run("pip", "compile", *arguments, "--no-header", self.file.name)
        if not well:
            raise RefusedError(f"{self.name} cannot be resolved for Python {self.python}: {said}")
        return [line for line in lines if line.startswith("-") and "index" in line] + joined(said)


def check(lines, name):
    lines = [line for line in lines if not line.startswith(("-c", "--constraint"))]
    for line in lines:
        why = unpinned(line)
        if why:
            raise RefusedError(f"{name}: {line.split(' --hash=')[0]} {why}")
    if not lines:
        raise RefusedError(f"{name} names no package: a Django application needs django at least")
    return lines


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(text)
    aside.rename(path)


def digest_of(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def pin(project, dest, check_mode=False):
    try:
        lines, loose = project.pinned()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, FileNotFoundError, KeyError) as error:
        raise RefusedError(f"{project.name} or its lock cannot be read: {error}") from None
    changed, warning = False, ""
    if loose:
        resolved = dest / f"resolved-{digest_of(project.python + project.name + chr(10).join(lines))}.txt"
        warning = (
            f"{project.name} does not pin each package by hash: resolved once, and kept in {resolved}. "
            f"For the same everywhere commit a lock: uv pip compile --generate-hashes {project.name}"
        )
        if not resolved.exists():
            text = "\n".join(check(project.resolve(lines), project.name)) + "\n"
            changed = True
            if check_mode:
                return resolved, digest_of(text), warning, changed
            write(resolved, text)
        lines = resolved.read_text().splitlines()
    text = "\n".join(check(lines, project.name)) + "\n"
    path = dest / f"{digest_of(text)}.txt"
    if not path.exists():
        changed = True
        if not check_mode:
            write(path, text)
    return path, digest_of(text), warning, changed


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "file": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "uv": {"type": "path", "required": True},
            "python": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    project = Project(Path(asked["root"]).resolve(), asked["file"], asked["uv"], asked["python"])
    try:
        path, digest, warning, changed = pin(project, Path(asked["dest"]), module.check_mode)
    except (RefusedError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"Requirements: {error}")
    if warning:
        module.warn(warning)
    module.exit_json(changed=changed, path=str(path), digest=digest, warning=warning)


if __name__ == "__main__":
    main()
