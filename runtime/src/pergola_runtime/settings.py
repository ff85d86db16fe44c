"""The settings of a project that has no support for Pergola, with what production needs set over them.

DJANGO_SETTINGS_MODULE=pergola_runtime.settings; the project's own module is named by APP_SETTINGS_MODULE.
What is set, and why: overlay.py.
"""

import os
from importlib import import_module
from pathlib import Path

from pergola_runtime.overlay import over
from pergola_runtime.versions import installed

if "APP_SETTINGS_MODULE" not in os.environ:
    raise SystemExit(
        "APP_SETTINGS_MODULE is not set: it names the project's own settings, such as shop.settings"
    )
own = {
    name: value
    for name, value in vars(import_module(os.environ["APP_SETTINGS_MODULE"])).items()
    if name.isupper()
}
globals().update(own)
# every process of a release starts in its source's directory
globals().update(over(own, os.environ, Path.cwd()))

# here, as workers, beat and management commands read these settings too
if installed("celery"):
    from pergola_runtime.delays import refuse_long_delays
    from pergola_runtime.logs import follow_jobs

    refuse_long_delays()
    follow_jobs()
