"""What each HTTP server loads: `gunicorn pergola_runtime.serving:application`

The application that PERGOLA_APPLICATION names (config.asgi:application), or Django's own for a project
without an asgi.py. Where it calls Django's get_asgi_application(), it gets the handler that choice.py
chooses. What it sends to Celery is held to the same rules as in a worker (jobs.py).
"""

import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from uvicorn.importer import import_from_string

from pergola_runtime import choice
from pergola_runtime.behind_nginx import behind_nginx
from pergola_runtime.logs import follow_jobs, limit_streams
from pergola_runtime.pooling import database_problem, pooled


def load():
    limit_streams()
    choice.install()
    if os.environ.get("PERGOLA_CELERY"):
        from pergola_runtime.delays import refuse_long_delays

        refuse_long_delays()
        follow_jobs()
    name = os.environ.get("PERGOLA_APPLICATION")
    application = import_from_string(name) if name else choice.get_asgi_application()
    choice.report_application(name)
    # PERGOLA_POOL_MODE: DATABASE_URL leads to PgBouncer. An application need not be Django's.
    if os.environ.get("PERGOLA_POOL_MODE") and settings.configured:
        for alias in pooled(settings.DATABASES):
            engines = [kind.__module__ for kind in type(connections[alias]).__mro__]
            if problem := database_problem(alias, settings.DATABASES[alias], engines=engines):
                raise ImproperlyConfigured(problem)
    return behind_nginx(application)


application = load()
