from channels.auth import AuthMiddlewareStack
from django.urls import re_path

from chat.consumers import ChatConsumer

# around this consumer alone: who is logged in is a question to the database
websocket_urlpatterns = [
    re_path(r"^ws/chat/(?P<slug>[-\w]{1,240})/$", AuthMiddlewareStack(ChatConsumer.as_asgi())),
]
