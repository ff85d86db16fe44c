"""Hold a host's lock of deploys until this playbook ends, however it ends: ``deploy_lock: {kind: deploy}``.

Starts ``hold.py`` beside the playbook, which keeps ``app-deploy-lock`` running on the host over a connection
of its own: a second after the playbook is gone, killed or not, the lock is free. Fails at once, and says who
holds it since when, where it is taken.

Returns ``holder``, the process id of ``hold.py`` on the control machine. With ``holder:`` in place of
``kind:`` it fails when that process is gone: the lock was lost with the connection, and somebody else may
have it. Nothing is held in check mode. Source: flock(1).
"""

import getpass
import multiprocessing
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from ansible.plugins.action import ActionBase

HOLD = Path(__file__).parents[2] / "hold.py"


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        if self._task.check_mode:
            return result | {"skipped": True}
        host = task_vars["inventory_hostname"]
        if holder := self._task.args.get("holder"):
            if not lives(int(holder)):
                result["failed"] = True
                result["msg"] = (
                    f"The connection that held the lock of {host} broke, so somebody else may be deploying: "
                    "nothing was switched here; deploy again"
                )
            return result

        who = f"{self._task.args['kind']} by {getpass.getuser()}@{socket.gethostname()}"
        said, holder = hold(self._templar.template(task_vars["host_login"]), who)
        if said == "held":
            return result | {"holder": holder}
        if " since " in said:
            msg = f"{host} is locked: {said}. Wait for its end; killed, it lets go as well"
        else:
            msg = f"{host} gave no lock: {said}. Is it converged? make converge builds it"
        return result | {"failed": True, "msg": msg}


def hold(login, who):
    """What the host said, and the process that holds its lock."""
    playbook = multiprocessing.parent_process().pid
    reach = [*login[:-1], "-o", "ServerAliveInterval=15", login[-1]]
    asked = shlex.join(["sudo", "-n", "app-deploy-lock", who])
    held = subprocess.Popen(  # noqa: S603
        [sys.executable, HOLD, str(playbook), *reach, asked],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C ends the playbook; this notices
    )
    said = held.stdout.readline().strip()
    if said != "held":
        said = f"{said} {held.communicate()[0]}".strip()
    return said, held.pid


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
