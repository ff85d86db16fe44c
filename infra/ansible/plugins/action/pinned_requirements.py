"""Make a list of packages that are pinned by hash, from a project's requirements (pergola.requirements).

Arguments: ``root``, the source's directory; ``file``, relative to it; ``dest``, the directory of lists;
``uv``, the program; ``python``, the version that the servers run; ``index``, the address of a package index,
or empty. Returns ``path``, ``digest``, ``warning`` (or empty) and ``changed`` (a list was written). Fails in
one line that names what to do.
"""

import subprocess
from pathlib import Path

from ansible.plugins.action import ActionBase

from pergola import requirements


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            {
                "root": {"type": "path", "required": True},
                "file": {"type": "str", "required": True},
                "dest": {"type": "path", "required": True},
                "uv": {"type": "path", "required": True},
                "python": {"type": "str", "required": True},
                "index": {"type": "str", "required": True},
            }
        )
        uv = requirements.Uv(Path(given["uv"]), given["python"], given["index"])
        project = requirements.Project(Path(given["root"]).resolve(), given["file"], uv)
        try:
            pinned = requirements.pin(project, Path(given["dest"]), self._task.check_mode)
        except (requirements.RefusedError, subprocess.TimeoutExpired) as error:
            return result | {"failed": True, "msg": f"Requirements: {error}"}
        warnings = [pinned.warning] if pinned.warning else []
        return result | pinned._asdict() | {"path": str(pinned.path), "warnings": warnings}
