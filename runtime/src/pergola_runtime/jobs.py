"""The module that Celery's worker and beat load: `celery --app pergola_runtime.jobs:app worker`

`app` is the application that PERGOLA_CELERY names (config.celery:app). Its tasks are never sent with a delay
for which Redis would deliver them twice (delays.py), and the lines of its log name the request that sent a
task (logs.py). serving.py does the same in the processes that serve requests.
"""

import os

from celery.app.utils import find_app

from pergola_runtime.delays import refuse_long_delays
from pergola_runtime.logs import follow_jobs, limit_streams

limit_streams()
refuse_long_delays()
follow_jobs()
app = find_app(os.environ["PERGOLA_CELERY"])
