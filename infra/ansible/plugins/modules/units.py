#!/usr/bin/python
"""Ansible module: enable and start systemd units, all in one step.

Arguments: ``enabled`` and ``started``, lists of units. Returns ``changed``, and ``units``: what it enabled or
started. Fails with systemctl's own message.
"""

from ansible.module_utils.basic import AnsibleModule

# systemctl(1), is-enabled: units that start at boot by themselves, or for other units
ENABLED = {"enabled", "enabled-runtime", "static", "indirect", "alias", "generated"}
STARTED = {"active", "activating", "reloading"}


def others(module, verb, units, states):
    """The units whose state is not in `states`."""
    if not units:
        return []
    _, out, error = module.run_command(["systemctl", verb, *units])
    found = out.split()
    if len(found) != len(units):
        module.fail_json(msg=f"systemctl {verb} {' '.join(units)}: {(error or out).strip()}")
    return [unit for unit, state in zip(units, found, strict=True) if state not in states]


def main():
    lists = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule({"enabled": lists, "started": lists}, supports_check_mode=True)
    enable = others(module, "is-enabled", module.params["enabled"], ENABLED)
    start = others(module, "is-active", module.params["started"], STARTED)
    if not module.check_mode:
        for verb, units in (("enable", enable), ("start", start)):
            if units:
                module.run_command(["systemctl", verb, *units], check_rc=True)
    module.exit_json(changed=bool(enable or start), units=sorted({*enable, *start}))


if __name__ == "__main__":
    main()
