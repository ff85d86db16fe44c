"""The lab's own two services, beside the site, where a visitor can let hundreds sleep and block: the same
views behind one Uvicorn process (`lab.service:asgi`) and behind one sync worker of gunicorn
(`lab.service:wsgi`).
"""

import os

# Set anew, as the site's own stands in the environment of all its units.
os.environ["DJANGO_SETTINGS_MODULE"] = "lab.service_settings"

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

asgi = get_asgi_application()
wsgi = get_wsgi_application()
