"""Which files a part depends on, and one digest of them all."""

import contextlib
import fnmatch
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Files that the runs write. No part depends on them, even if its patterns match.
OUTPUTS = ("bench/results/", "tests/ledger.json")


def git(*arguments, given=None):
    """Return git's output. Exit with git's message if it fails: with no files, no part would look changed."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {arguments[0]} failed, and the ledger needs it: {done.stderr.strip()}")
    return done.stdout


def working_tree():
    """{path: its mode and git's own hash of its content}, of what git tracks or would add."""
    for _ in range(5):  # a test may remove a file of its own between two commands
        listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        names = sorted(name for name in set(filter(None, listed)) if (ROOT / name).is_file())
        links = {name for name in names if (ROOT / name).is_symlink()}
        files = [name for name in names if name not in links]
        try:
            modes = ["100755" if (ROOT / name).stat().st_mode & 0o100 else "100644" for name in files]
            hashes = git("hash-object", "--stdin-paths", given="".join(f"{name}\n" for name in files)).split()
        except (OSError, SystemExit):
            continue
        found = {name: f"{mode} {one}" for name, mode, one in zip(files, modes, hashes, strict=True)}
        for name in links:  # git's content of a link is where it leads
            target = git("hash-object", "--stdin", given=str((ROOT / name).readlink())).strip()
            found[name] = f"120000 {target}"
        return found
    sys.exit(f"git cannot read the files of {ROOT}: run `git status` there")


def commit_tree(commit="HEAD"):
    """The same of a commit."""
    found = {}
    for line in filter(None, git("ls-tree", "-r", "-z", commit).split("\0")):
        about, _, name = line.partition("\t")
        mode, _, content = about.split()
        found[name] = f"{mode} {content}"
    return found


@functools.cache
def expression(patterns, pages):
    chosen = [fnmatch.translate(one) for one in patterns if one.endswith(".md") == pages]
    return re.compile("|".join(chosen) or "$.")


def matches(name, patterns):
    if name.startswith(OUTPUTS):
        return False
    return expression(patterns, name.endswith(".md")).match(name) is not None


def files_of(part, tree):
    return {name: content for name, content in tree.items() if matches(name, part.files)}


def digest(part, tree, packages=""):
    """Of the part's files in this tree, of how it is called, and of the base image's packages.

    None for a part that names no files: its result cannot be checked.
    """
    if not part.files:
        return None
    parts = [part.command, part.variables, sorted(files_of(part, tree).items())]
    parts.append(sorted(name for name in tree if matches(name, part.links)))
    parts.append(packages if part.place != "here" else "")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def images():
    states = Path(os.environ.get("PERGOLA_STATE") or ROOT / ".pergola")
    return Path(os.environ.get("PERGOLA_IMAGES") or states / "images").absolute()


def base_packages():
    """A digest of the base image's Debian packages with their versions; empty where none can be read.

    There is at most one image, in a directory that only root can read.
    """
    command = ["sh", "-c", 'cat "$1"/debian-13-*/var/lib/dpkg/status', "sh", str(images())]
    status = ""
    for before in ([], ["sudo", "-n"]):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            status = subprocess.run([*before, *command], capture_output=True, text=True, check=True).stdout
            break
    if not status:
        return ""
    found = re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)$", status, re.MULTILINE)
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()[:16]
