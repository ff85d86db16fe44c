"""Celery's application: `celery -A config.celery:app worker`. Its settings are Django's, from CELERY_ on."""

import os

from celery import Celery
from pergola_runtime.delays import refuse_long_delays
from pergola_runtime.logs import follow_jobs

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# For management commands: servers, worker and beat do both by themselves.
refuse_long_delays()  # jobs that Redis would deliver again before they are due
follow_jobs()  # log lines of a job have the id of its request
app = Celery("pergola")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
