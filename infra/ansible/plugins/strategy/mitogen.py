"""The linear strategy, carried by mitogen: modules run over one lasting connection to a host.

ansible_mitogen ships the same as ``mitogen_linear``, but in a directory whose path holds the Python
version; this file's path can stand in ansible.cfg.
"""

import sys

import ansible_mitogen.strategy
from ansible.plugins.strategy import linear
from ansible_mitogen import transport_config

split = transport_config.parse_python_path


def parse_python_path(s, **arguments):
    """mitogen reads words where Ansible names this machine's Python, in whose path may be spaces."""
    return [sys.executable] if s == sys.executable else split(s, **arguments)


transport_config.parse_python_path = parse_python_path


class StrategyModule(ansible_mitogen.strategy.StrategyMixin, linear.StrategyModule):
    pass
