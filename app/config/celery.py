"""Celery's application: `celery -A config.celery:app worker`. Its settings are Django's, from CELERY_ on."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
app = Celery("pergola")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
