"""Pack the release that a deploy copies to the hosts (pergola.bundle).

Arguments: those of pergola.bundle.Source, with ``requirements`` for its packages and ``uv`` (the program),
``python`` (the version that the servers run) and ``python_index`` for its uv; ``runtime`` is empty without
pergola_runtime; and ``cache``, a directory. Returns ``path``, ``id`` (of the release) and ``changed``. Fails
with one line that says what to do.
"""

from pathlib import Path

from ansible.plugins.action import ActionBase

from pergola import bundle, requirements

TEXT = {"type": "str", "required": True}
PATH = {"type": "path", "required": True}
LIST = {"type": "list", "elements": "str", "required": True}


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            {
                "root": PATH,
                "directory": TEXT,
                "requirements": TEXT,
                "manage": LIST,
                "static": {"type": "bool", "required": True},
                "static_url": TEXT,
                "servers": LIST,
                "runtime": TEXT,
                "runtime_locks": LIST,
                "uv": PATH,
                "python": TEXT,
                "python_index": TEXT,
                "cache": PATH,
            }
        )
        source = bundle.Source(
            root=Path(given["root"]),
            directory=given["directory"],
            packages=given["requirements"],
            manage=given["manage"],
            static=given["static"],
            static_url=given["static_url"],
            servers=given["servers"],
            runtime=Path(given["runtime"]) if given["runtime"] else None,
            runtime_locks=given["runtime_locks"],
            uv=requirements.Uv(Path(given["uv"]), given["python"], given["python_index"]),
        )
        try:
            made = bundle.make(source, Path(given["cache"]), self._task.check_mode)
        except bundle.BundleError as error:
            return result | {"failed": True, "msg": str(error)}
        warnings = [made.warning] if made.warning else []
        return result | {"path": str(made.path), "id": made.id, "changed": made.changed, "warnings": warnings}
