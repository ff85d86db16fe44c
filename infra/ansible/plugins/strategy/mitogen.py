"""The linear strategy over mitogen: modules run over one persistent connection to a host.

ansible_mitogen ships the same as ``mitogen_linear``, but in a directory whose path contains the
Python version; ansible.cfg can name this file's path.
"""

import sys

import ansible_mitogen.strategy
from ansible.plugins.strategy import linear
from ansible_mitogen import transport_config

split = transport_config.parse_python_path


def parse_python_path(s, **arguments):
    """Keep the path of this machine's Python whole: mitogen would split it at a space."""
    return [sys.executable] if s == sys.executable else split(s, **arguments)


transport_config.parse_python_path = parse_python_path


class StrategyModule(ansible_mitogen.strategy.StrategyMixin, linear.StrategyModule):
    pass
