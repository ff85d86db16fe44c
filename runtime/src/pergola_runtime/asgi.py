"""The ASGI application of a project that has none."""

from pergola_runtime.handler import get_asgi_application

application = get_asgi_application()
