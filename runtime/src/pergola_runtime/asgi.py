"""For units of a converge before 0.7.0; serving.py is what units name now."""

from pergola_runtime.choice import get_asgi_application

application = get_asgi_application()
