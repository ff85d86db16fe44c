"""Install files of infra/ on a host in one step: ``server_files: {name: nginx, files: [nginx/nginx.conf]}``.

Arguments:
    files    paths under infra/, less ``.j2``, which are also the paths on the server (pergola/mirror.py); a
             directory's path ends with a slash. Or mappings:
                 path
                 dest      another path on the server
                 of, each  a list of mappings with a ``name``: one file for each entry, which the template
                           finds in the variable ``each``; ``{name}`` in ``dest`` is the entry's name
                 validate  a command that gets the path of the new file in place of %s
                 owner, group, mode, secret    as below, for this file
    owner, group, mode    root, root and 0644 unless set
    secret   true: the content is not shown
    absent   paths on the server that are removed
    name     names a state of files that a service has read. The task reports `changed` until that state was
             recorded as applied, also in a later run where handlers did not run before.
    watch    further paths whose content belongs to that state
    applied  true: record the state ``name`` as applied. For the handler that runs last.
    states   the directory of these records

Directories that do not exist are made (root, 0755). Returns ``changed`` and, with --diff, the differences.
"""

import json
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader

from pergola.mirror import destination, sources

ARGUMENTS = {"files", "owner", "group", "mode", "secret", "absent", "name", "watch", "applied", "states"}
ATTRIBUTES = {"owner", "group", "mode", "secret"}
OF_A_FILE = ATTRIBUTES | {"path", "dest", "of", "each", "validate"}


class ActionModule(ActionBase):
    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        asked = self._task.args
        if unknown := asked.keys() - ARGUMENTS:
            raise AnsibleActionFail(f"server_files has no argument {', '.join(sorted(unknown))}")
        wanted = {
            "states": asked.get("states", "/var/lib/pergola"),
            "name": asked.get("name", ""),
            "applied": asked.get("applied", False),
            "files": [one for file in asked.get("files", []) for one in self._files(file, task_vars)],
            "absent": asked.get("absent", []),
            "watch": [one if one.startswith("/") else destination(one) for one in asked.get("watch", [])],
        }
        # in a file, as the host's journal logs each module's arguments
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        remote = shell.join_path(shell.tmpdir, "server_files.json")
        self._transfer_data(remote, json.dumps(wanted))
        self._fixup_perms2((shell.tmpdir, remote))
        module = {"wanted": remote}
        result |= self._execute_module(module_name="server_files", module_args=module, task_vars=task_vars)
        self._remove_tmp_path(shell.tmpdir)
        return result

    def _files(self, asked, task_vars):
        asked = {"path": asked} if isinstance(asked, str) else asked
        if unknown := asked.keys() - OF_A_FILE:
            raise AnsibleActionFail(f"server_files: {asked['path']} has no {', '.join(sorted(unknown))}")
        attributes = {"owner": "root", "group": "root", "mode": "0644", "secret": False, "validate": ""}
        for given in (self._task.args, asked):
            attributes |= {name: given[name] for name in attributes if name in given}
        infra = Path(task_vars["playbook_dir"]).parent
        for path, source in sources(infra, asked["path"]).items():
            for entry in asked.get("of", [None]):
                variables = {} if entry is None else {asked["each"]: entry}
                dest = asked.get("dest", destination(path))
                if entry is not None:
                    dest = dest.replace("{name}", entry["name"])
                content = self._content(source, task_vars, variables)
                yield attributes | {"dest": dest, "content": content}

    def _content(self, source, task_vars, variables):
        if source.suffix != ".j2":
            return source.read_text(encoding="utf-8")
        template = lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=self._templar)
        (content,) = template.run([str(source)], variables=task_vars, template_vars=variables)
        return str(content)
