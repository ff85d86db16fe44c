"""The ASGI application of a project that has none: Django's own."""

from django.core.asgi import get_asgi_application

application = get_asgi_application()
