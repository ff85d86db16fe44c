"""Pack a directory of the control machine into an archive named by its content (pergola.sources).

Arguments: ``root``, the source's directory; ``paths``, what of it is taken (relative to it); ``dest``, the
directory of archives. Returns ``archive`` (path), ``digest``, ``revision`` (``git describe``, or empty) and
``changed`` (an archive was written). Fails if a path does not exist.
"""

from pathlib import Path

from ansible.plugins.action import ActionBase

from pergola import sources


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            {
                "root": {"type": "path", "required": True},
                "paths": {"type": "list", "elements": "str", "required": True},
                "dest": {"type": "path", "required": True},
            }
        )
        try:
            packed = sources.archive(
                Path(given["root"]), given["paths"], Path(given["dest"]), self._task.check_mode
            )
        except sources.MissingPathError as error:
            return result | {"failed": True, "msg": str(error)}
        return result | packed._asdict() | {"archive": str(packed.archive)}
