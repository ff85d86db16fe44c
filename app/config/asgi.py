"""gunicorn's workers serve the HTTP part, Daphne the WebSockets."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
http = get_asgi_application()  # sets Django up: what imports models comes after it

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402

from config.celery import app as celery  # noqa: E402
from core.routing import websocket_urlpatterns  # noqa: E402

# Sending a job waits twice for a Redis that does not answer, and for less than a second in all. Workers keep
# the setting's longer limit, as they wait for jobs.
celery.conf.broker_transport_options = celery.conf.broker_transport_options | {
    "socket_timeout": 0.4,
    "socket_connect_timeout": 0.35,
}

application = ProtocolTypeRouter(
    {
        "http": http,
        # A browser sends the user's cookies along from any site: only our own pages may open a WebSocket.
        "websocket": AllowedHostsOriginValidator(URLRouter(websocket_urlpatterns)),
    }
)
