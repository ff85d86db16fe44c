"""Which files a part depends on, and one digest of them all."""

import fnmatch
import functools
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def git(*arguments, given=None):
    """What git printed; nothing where this is no checkout or git refuses."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def working_tree():
    """{path: its mode and git's own hash of its content}, of what git tracks or would add."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    names = sorted(name for name in set(filter(None, listed)) if (ROOT / name).is_file())
    links = {name for name in names if (ROOT / name).is_symlink()}
    files = [name for name in names if name not in links]
    hashes = git("hash-object", "--stdin-paths", given="".join(f"{name}\n" for name in files)).split()
    found = {
        name: f"{'100755' if (ROOT / name).stat().st_mode & 0o100 else '100644'} {content}"
        for name, content in zip(files, hashes, strict=True)
    }
    for name in links:  # git's content of a link is where it leads
        target = git("hash-object", "--stdin", given=str((ROOT / name).readlink())).strip()
        found[name] = f"120000 {target}"
    return found


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
    return re.compile(
        "|".join(fnmatch.translate(one) for one in patterns if one.endswith(".md") == pages) or "$."
    )


def matches(name, patterns):
    return expression(patterns, name.endswith(".md")).match(name) is not None


def files_of(part, tree):
    return {name: content for name, content in tree.items() if matches(name, part.files)}


def digest(part, tree, packages=""):
    """Of the part's files in this tree, of how it is called, and of the base image's packages.

    None for a part that names no files: nothing tells when its result is out of date.
    """
    if not part.files:
        return None
    parts = [part.command, part.variables, sorted(files_of(part, tree).items())]
    parts.append(packages if part.place != "here" else "")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def images():
    states = Path(os.environ.get("PERGOLA_STATE") or ROOT / ".pergola")
    return Path(os.environ.get("PERGOLA_IMAGES") or states / "images")


def base_packages():
    """A digest of the base image's Debian packages with their versions; empty where no image was built."""
    status = sorted(images().glob("debian-13-*/var/lib/dpkg/status"), key=lambda path: path.stat().st_mtime)
    if not status:
        return ""
    found = re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)$", status[-1].read_text(), re.MULTILINE)
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()[:16]
