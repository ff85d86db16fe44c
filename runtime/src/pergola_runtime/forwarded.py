"""For units of a converge before 0.7.0; serving.py is what units name now."""

from pergola_runtime.serving import application

__all__ = ["application"]
