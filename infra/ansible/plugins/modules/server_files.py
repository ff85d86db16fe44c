#!/usr/bin/python
"""Ansible module: install files. The action plugin of the same name documents it and brings their content.

``wanted`` is the path of a JSON file: {"files": [{"dest", "content", "owner", "group", "mode", "secret",
"validate"}], "absent": [path], "watch": [path], "name", "applied", "states"}.

In the directory ``states``, NAME has the digest of the state that was applied last, and NAME.wanted that of a
later one.
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
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def has_attributes(path, file):
    found = path.stat()
    try:
        wanted = pwd.getpwnam(file["owner"]).pw_uid, grp.getgrnam(file["group"]).gr_gid, int(file["mode"], 8)
    except KeyError:  # in check mode, before the package that brings the user
        return False
    return (found.st_uid, found.st_gid, found.st_mode & 0o7777) == wanted


def install(module, file):
    """Replace a file if it differs; return whether it did, and its text before."""
    path = Path(file["dest"])
    if path.is_symlink():
        module.fail_json(msg=f"{path} is a link: remove it, so that a file can be there")
    before = text_of(path)
    if before == file["content"] and has_attributes(path, file):
        return False, before
    if module.check_mode:
        return True, before
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # a name that no daemon reads; readable for root alone until it has its owner
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
            module.fail_json(msg=f"{path} is as before, as its new content is not valid: {reason}")
    new.replace(path)
    return True, before


def digest(paths):
    found = hashlib.sha256()
    for path in sorted(paths):
        content = Path(path).read_bytes() if Path(path).is_file() else b""
        found.update(json.dumps([path, hashlib.sha256(content).hexdigest()]).encode())
    return found.hexdigest()


def is_applied(module, record, paths):
    wanted = digest(paths)
    if text_of(record) == wanted:
        return True
    if not module.check_mode:
        record.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        record.with_name(f"{record.name}.wanted").write_text(wanted)
    return False


def difference(file, before):
    shown = not file["secret"]
    return {
        "before_header": file["dest"],
        "after_header": file["dest"],
        "before": (before or "") if shown else "",
        "after": file["content"] if shown else "(not shown: a secret)\n",
    }


def main():
    module = AnsibleModule({"wanted": {"type": "path", "required": True}}, supports_check_mode=True)
    wanted = json.loads(Path(module.params["wanted"]).read_text())
    record = Path(wanted["states"], wanted["name"])
    if wanted["applied"]:
        if not module.check_mode:
            record.with_name(f"{record.name}.wanted").replace(record)
        module.exit_json(changed=True)
    changed, differences = [], []
    for file in wanted["files"]:
        differs, before = install(module, file)
        if differs:
            changed.append(file["dest"])
            differences.append(difference(file, before))
    for path in map(Path, wanted["absent"]):
        if path.exists() or path.is_symlink():
            changed.append(str(path))
            if not module.check_mode:
                path.unlink()
    paths = [*(file["dest"] for file in wanted["files"]), *wanted["watch"]]
    applied = not wanted["name"] or is_applied(module, record, paths)
    shown = {"diff": differences} if module._diff else {}
    module.exit_json(changed=bool(changed) or not applied, files=changed, **shown)


if __name__ == "__main__":
    main()
