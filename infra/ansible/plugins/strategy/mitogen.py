"""The linear strategy, carried by mitogen: modules run over one lasting connection to a host.

ansible_mitogen ships the same as ``mitogen_linear``, but in a directory whose path holds the Python
version; this file's path can stand in ansible.cfg.
"""

import ansible_mitogen.strategy
from ansible.plugins.strategy import linear


class StrategyModule(ansible_mitogen.strategy.StrategyMixin, linear.StrategyModule):
    pass
