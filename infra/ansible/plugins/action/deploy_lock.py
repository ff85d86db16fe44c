"""Hold a host's lock of deploys until this playbook ends, however it ends: ``deploy_lock: {kind: deploy}``.

Fails at once if the lock is taken, with who holds it since when. Returns ``holder``, the process on the
control machine that holds the lock (pergola.lease). With ``holder:`` instead of ``kind:``, fails if that
process has ended: the lock was lost with the connection, and somebody else may have it. Nothing is held in
check mode.
"""

import getpass
import multiprocessing
import socket

from ansible.plugins.action import ActionBase

from pergola import lease


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        if self._task.check_mode:
            return result | {"skipped": True}
        host = task_vars["inventory_hostname"]
        if holder := self._task.args.get("holder"):
            if lease.alive(int(holder)):
                return result
            msg = (
                f"The connection that held the lock of {host} broke, so somebody else may be deploying: "
                "nothing was switched here; deploy again"
            )
            return result | {"failed": True, "msg": msg}

        who = f"{self._task.args['kind']} by {getpass.getuser()}@{socket.gethostname()}"
        login = self._templar.template(task_vars["host_login"])
        # this is a worker of the playbook's process
        said, holder = lease.take(login, who, multiprocessing.parent_process().pid)
        if said == "held":
            return result | {"holder": holder}
        if " since " in said:
            msg = f"{host} is locked: {said}. Wait for its end; killed, it lets go as well"
        else:
            msg = f"{host} gave no lock: {said}. Is it converged? make converge builds it"
        return result | {"failed": True, "msg": msg}
