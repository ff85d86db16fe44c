from django.urls import path, re_path

from chat.routing import websocket_urlpatterns as chat
from core.consumers import EchoConsumer


async def refuse(scope, receive, send):
    """Channels answers an unknown path with an exception, a traceback in the log for every curious robot."""
    await receive()
    await send({"type": "websocket.close"})


websocket_urlpatterns = [
    path("ws/echo/", EchoConsumer.as_asgi()),
    *chat,
    re_path("", refuse),
]
