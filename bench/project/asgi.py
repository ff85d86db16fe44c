"""As the sample's: HTTP to Django, WebSockets to Channels. PERGOLA_HANDLER says whose handler it is.

Django's own is taken from Django, as pergola_runtime limits the connections to Redis under both.
"""

import os

if os.environ.get("PERGOLA_HANDLER") == "django":
    from django.core.asgi import get_asgi_application
else:
    try:
        from pergola_runtime.choice import get_asgi_application
    except ImportError:  # BASE names a commit before 0.7.0
        from pergola_runtime.handler import get_asgi_application

http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from bench.project.consumers import Broadcast  # noqa: E402

application = ProtocolTypeRouter({"http": http, "websocket": URLRouter([path("ws/", Broadcast.as_asgi())])})
