"""For an asgi.py that names it, as before version 0.7; by now each asgi.py gets the handler (choice.py)."""

from pergola_runtime.choice import get_asgi_application

__all__ = ["get_asgi_application"]
