"""As the sample's: HTTP to Django, WebSockets to Channels. PERGOLA_HANDLER says whose handler it is."""

from pergola_runtime.handler import get_asgi_application

http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from bench.project.consumers import Broadcast  # noqa: E402

application = ProtocolTypeRouter({"http": http, "websocket": URLRouter([path("ws/", Broadcast.as_asgi())])})
