"""Hold a host's deploy lock until this playbook ends, for whatever reason: ``deploy_lock: {kind: deploy}``.

Fails at once if the lock is held, and says by whom and since when. Returns ``holder``, the process on the
control machine that holds the lock (pergola.lease). With ``holder:`` instead of ``kind:``, fails if that
process has ended: the lock was lost with the connection, and another deploy may hold it. Check mode takes
no lock.
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
                f"The connection that held the lock of {host} broke, so another deploy may be running: "
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
            msg = f"{host} is locked: {said}. Wait for it to finish. Killing it also releases the lock"
        else:
            msg = f"Could not lock {host}: {said}. If it is not converged, run make converge"
        return result | {"failed": True, "msg": msg}
