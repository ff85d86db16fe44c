#!/usr/bin/python
"""Ansible module: pack a directory of the control machine into an archive named by its content.

Arguments: ``root``, the source's directory; ``paths``, what of it is taken (relative to it); ``dest``, the
directory of archives. In a git checkout the files that git tracks or would track are taken, as they are in
the work tree; elsewhere all but hidden ones. The same content gives the same archive to the byte, so that
its name says whether there is anything new.

Returns ``archive`` (path), ``digest`` (12 hex digits of SHA-256), ``revision`` (``git describe``, or empty)
and ``changed`` (an archive was written). Fails when a path is not there, naming it.
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def git(root, *arguments):
    if not shutil.which("git"):
        return None
    # safe.directory: the person's checkout may be read by root
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout if done.returncode == 0 else None


def files(root, paths):
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


def pack(root, names):
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


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "paths": {"type": "list", "elements": "str", "required": True},
            "dest": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    root, dest = Path(module.params["root"]), Path(module.params["dest"])
    for path in module.params["paths"]:
        if not (root / path).exists():
            module.fail_json(msg=f"{root} has no {path}")
    content = pack(root, files(root, module.params["paths"]))
    digest = hashlib.sha256(content).hexdigest()[:12]
    archive = dest / f"{digest}.tar.gz"
    changed = not archive.exists()
    if changed and not module.check_mode:
        dest.mkdir(parents=True, exist_ok=True)
        aside = archive.with_suffix(f".{os.getpid()}")
        aside.write_bytes(content)
        aside.rename(archive)
    revision = (git(root, "describe", "--always", "--dirty", "--tags") or "").strip()
    module.exit_json(changed=changed, archive=str(archive), digest=digest, revision=revision)


if __name__ == "__main__":
    main()
