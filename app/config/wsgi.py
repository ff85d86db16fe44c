"""The same project for a WSGI server; nothing in Pergola uses it (the lab has its own, lab/service.py)."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_wsgi_application()
