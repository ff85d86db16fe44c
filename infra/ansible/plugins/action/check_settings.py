"""Check every setting before any role runs: ``check_settings:``, or ``check_settings: {prefix: machines_}``.

Ansible checks a role's inputs when that role begins, after the roles before it changed the host. This action
checks the variables of the host against all ``meta/argument_specs.yml`` at once (pergola/settings.py). On the
play's first host it also checks that all hosts of the inventory have the same values where they must, and
that each value is in a file in which it has an effect.

Returns ``changed: false``. Fails with all problems, a line for each.
"""

from pathlib import Path

from ansible.plugins.action import ActionBase

from pergola.settings import LaterError, Settings, UnknownValueError

# Facts are gathered after this check. These numbers stand in for them in formulas.
FACTS = {"memtotal_mb": 4096, "processor_nproc": 4}


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        settings = Settings(Path(task_vars["playbook_dir"]))
        inventory = Path(task_vars["inventory_dir"])
        place = str(inventory / "group_vars" / f"{inventory.name}.yml").removeprefix(f"{Path.cwd()}/")
        facts = FACTS | task_vars.get("ansible_facts", {})
        self._templar.available_variables = task_vars | {"ansible_facts": facts}

        prefix = self._task.args.get("prefix", "")
        problems = settings.check(task_vars, self._work_out, prefix=prefix, place=place)
        if task_vars["inventory_hostname"] == task_vars["ansible_play_hosts_all"][0] and not prefix:
            hosts = {name: task_vars["hostvars"].raw_get(name) for name in task_vars["groups"]["all"]}
            problems += settings.differing(hosts, place)
            problems += settings.without_effect(inventory, place)
        if problems:
            result.update(failed=True, msg="\n".join(problems))
        return result

    def _work_out(self, raw):
        if "secrets_values" not in self._templar.available_variables and "secrets_values" in repr(raw):
            raise LaterError
        try:
            return self._templar.template(raw)
        except Exception as error:
            # the reason is the innermost line: which variable is missing, or which filter refused
            raise UnknownValueError(str(error).splitlines()[0]) from error
