#!/usr/bin/python
"""Ansible module: install files. The action plugin of the same name documents it and supplies their content.

``wanted`` is the path of a JSON file: {"files": [{"dest", "content", "owner", "group", "mode", "secret",
"validate"}], "absent": [path], "watch": [path], "name", "applied", "states"}.

In the directory ``states``, NAME has the digest of each file as last applied, and NAME.wanted as it is to be
applied. NAME is removed before the first change, so that the state of an interrupted run counts as not
applied. An empty NAME is from Pergola 0.7: files that are not newer than it were applied.
"""

import grp
import hashlib
import json
import os
import pwd
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def text_of(path):
    """A file's text; None if there is no file, or a link."""
    if path.is_symlink() or not path.exists():
        return None
    return path.read_text(encoding="utf-8", errors="replace")


def has_attributes(path, file):
    found = path.stat()
    try:
        wanted = pwd.getpwnam(file["owner"]).pw_uid, grp.getgrnam(file["group"]).gr_gid, int(file["mode"], 8)
    except KeyError:  # in check mode, before the package that makes the user
        return False
    return (found.st_uid, found.st_gid, found.st_mode & 0o7777) == wanted


def differs(file):
    path = Path(file["dest"])
    return text_of(path) != file["content"] or not has_attributes(path, file)


def install(module, file):
    """Replace a file, or a link, by one rename."""
    path = Path(file["dest"])
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # a name that no daemon reads; readable only by root until its owner is set
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "w", encoding="utf-8") as opened:
        opened.write(file["content"])
        opened.flush()
        os.fsync(opened.fileno())
    shutil.chown(new, file["owner"], file["group"])
    new.chmod(int(file["mode"], 8))
    if file["validate"]:
        status, out, error = module.run_command(file["validate"] % new)
        if status:
            new.unlink()
            reason = (error or out).strip()
            module.fail_json(msg=f"{path} was not changed, as its new content is not valid: {reason}")
    new.replace(path)


def digests(paths):
    files = [path for path in paths if Path(path).is_file()]
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files}


def is_applied(record, paths):
    """Whether these files were applied as they are. Files that only the record has were removed."""
    recorded = text_of(record)
    if recorded is None:
        return False
    if not recorded:
        applied = record.stat().st_mtime_ns
        return all(Path(path).stat().st_mtime_ns <= applied for path in paths if Path(path).is_file())
    return json.loads(recorded).items() >= digests(paths).items()


def difference(file):
    shown, before = not file["secret"], text_of(Path(file["dest"]))
    return {
        "before_header": file["dest"],
        "after_header": file["dest"],
        "before": (before or "") if shown else "",
        "after": file["content"] if shown else "(not shown: a secret)\n",
    }


def main():
    os.umask(0o022)  # of the directories that it makes
    module = AnsibleModule({"wanted": {"type": "path", "required": True}}, supports_check_mode=True)
    wanted = json.loads(Path(module.params["wanted"]).read_text())
    record = Path(wanted["states"], wanted["name"])
    later = record.with_name(f"{record.name}.wanted")
    if wanted["applied"]:
        if not module.check_mode and later.exists():
            later.replace(record)
        module.exit_json(changed=True)

    changed = [file for file in wanted["files"] if differs(file)]
    removed = [path for path in wanted["absent"] if os.path.lexists(path)]
    shown = {"diff": [difference(file) for file in changed]} if module._diff else {}
    paths = [*(file["dest"] for file in wanted["files"]), *wanted["watch"]]
    applied = not wanted["name"] or (not changed and not removed and is_applied(record, paths))
    if not module.check_mode:
        if not applied:
            record.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            record.unlink(missing_ok=True)
        for file in changed:
            install(module, file)
        for path in removed:
            Path(path).unlink()
        if not applied:
            later.write_text(json.dumps(digests(paths)))
    names = [*(file["dest"] for file in changed), *removed]
    module.exit_json(changed=bool(names) or not applied, files=names, **shown)


if __name__ == "__main__":
    main()
