"""Check every setting of every role, before any role runs: ``check_settings:`` takes no arguments.

Ansible checks a role's inputs when it comes to that role, which is after the roles before it changed the
host. This action reads each role's ``meta/argument_specs.yml`` and ``defaults/main.yml`` and reports, for
the host at hand, every input that is missing, of a wrong type or not among its choices, and every variable
that has a role's prefix but is no setting at all (``site_domian``). One line a problem: the setting, what
is wrong, and the setting's description, which says what it wants.

Inputs marked ``no_log`` are left to the role itself: secrets may not exist yet. Returns ``changed: false``;
fails with all problems at once.
"""

from difflib import get_close_matches
from pathlib import Path

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.vars import isidentifier

SHARED_PREFIXES = ("site_",)
# these roles are handed their inputs where they are called
CALLED_ROLES = ("in_force", "machines")
# What these roles found out earlier in the same run: deploy.yml after site.yml checks again.
RESULTS = ("preflight_packages", "secrets_values")
# Facts are gathered after this check; these numbers let what is worked out from them be checked for its type.
FACTS = {"memtotal_mb": 4096, "processor_nproc": 4}


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        here = Path(task_vars["playbook_dir"])
        specs, defaults = {}, {}
        for path in sorted(here.glob("roles/*/meta/argument_specs.yml")):
            points = self._read(path)["argument_specs"].values()
            specs[path.parts[-3]] = {
                name: spec for point in points for name, spec in point["options"].items()
            }
        for path in here.glob("roles/*/defaults/main.yml"):
            defaults |= self._read(path) or {}
        known = set(defaults)
        for options in specs.values():
            known |= set(options)
        known |= {"machines_provider", *RESULTS}
        for path in here.glob("group_vars/all/*.yml"):
            known |= set(self._read(path))

        prefixes = tuple(f"{role}_" for role in specs) + SHARED_PREFIXES
        inventory = Path(task_vars["inventory_dir"])
        home = inventory / "group_vars" / f"{inventory.name}.yml"
        problems = []
        for name in sorted(task_vars):
            if name.startswith(prefixes) and name not in known and not name.startswith("__"):
                close = get_close_matches(name, known, n=1, cutoff=0.75)
                hint = f"did you mean {close[0]}?" if close else "take it out"
                problems.append(f"{name} is not a setting of Pergola: {hint}")

        facts = FACTS | task_vars.get("ansible_facts", {})
        literals = self._read(here / "group_vars/all/site.yml")
        for name in literals:
            problems += self._unlike(name, literals[name], task_vars[name], home)

        self._templar.available_variables = defaults | task_vars | {"ansible_facts": facts}
        for role in CALLED_ROLES:
            specs.pop(role)
        for options in specs.values():
            for name, option in options.items():
                if not option.get("no_log"):
                    problems += self._problems(name, option, task_vars, defaults, home)
        if problems:
            result.update(failed=True, msg="\n".join(dict.fromkeys(problems)))
        return result

    def _read(self, path):
        return self._loader.load_from_file(str(path), trusted_as_template=True)

    def _unlike(self, name, literal, raw, home):
        """A shared setting has the type of its literal in site.yml."""
        try:
            value = self._templar.template(raw)
        except Exception:
            return []  # whoever uses it reports it
        kinds = {bool: "true or false", int: "a whole number", str: "a text"}
        kinds |= {list: "a list", dict: "a mapping"}
        # in Python true is a number too
        number = isinstance(literal, int) and not isinstance(literal, bool)
        fits = str(value).isdecimal() if number else isinstance(value, type(literal))
        if fits or (isinstance(literal, str) and isinstance(value, int | float)):
            return []
        kind = next(text for type_, text in kinds.items() if isinstance(literal, type_))
        return [f"{name} is {value!r}: write {kind}, such as {literal!r}. Mend it in {home}"]

    def _problems(self, name, option, task_vars, defaults, home):
        meaning = " ".join(option["description"])
        raw = task_vars.get(name, defaults.get(name))
        if raw is None:
            if not option.get("required"):
                return []
            return [f"{name} is not set: {meaning} Set it in {home}"]
        try:
            value = self._templar.template(raw)
        except Exception as error:
            # the reason is the innermost line: which variable is missing, or which filter refused
            return [f"{name} cannot be worked out ({str(error).splitlines()[0]}): {meaning}"]
        spec = {key: option[key] for key in ("type", "elements", "choices", "options") if key in option}
        checked = ArgumentSpecValidator({name: spec}).validate({name: value})
        if checked.error_messages:
            return [f"{name} is {value!r}: {checked.error_messages[0]}. {meaning} Mend it in {home}"]
        if spec.get("type") == "dict" and not spec.get("options"):
            odd = [key for key in value if not isidentifier(key)]
            return [f"{name} has the key {key!r}, which is no name of a variable. {meaning}" for key in odd]
        return []
