"""What each HTTP server loads: `gunicorn pergola_runtime.serving:application`

The application that PERGOLA_APPLICATION names (config.asgi:application), or Django's own for a project
without an asgi.py. Where it calls Django's get_asgi_application(), it gets the handler that choice.py
chooses.
"""

import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from uvicorn.importer import import_from_string

from pergola_runtime import choice
from pergola_runtime.behind_nginx import behind_nginx
from pergola_runtime.logs import limit_streams
from pergola_runtime.pooling import databases_problem


def load():
    limit_streams()
    choice.install()
    name = os.environ.get("PERGOLA_APPLICATION")
    application = import_from_string(name) if name else choice.get_asgi_application()
    # PERGOLA_POOL_MODE: DATABASE_URL leads to PgBouncer. An application need not be Django's.
    if os.environ.get("PERGOLA_POOL_MODE") and settings.configured:
        engines = [kind.__module__ for kind in type(connections["default"]).__mro__]
        if problem := databases_problem(settings.DATABASES, engines=engines):
            raise ImproperlyConfigured(problem)
    return behind_nginx(application)


application = load()
