"""The application for Hypercorn's workers: `hypercorn pergola_runtime.hypercorn:application`, serving.py's.

On SIGTERM, Hypercorn sets an event for its workers, and sends all of them a signal as soon as the first has
no request left: requests in progress are cut. A worker that ignores the signal exits by the event.
"""

import signal

from hypercorn.config import Config

from pergola_runtime.serving import application

__all__ = ["application"]

signal.signal(signal.SIGTERM, signal.SIG_IGN)
# Hypercorn's default is 16 kB; nginx limits a request's headers.
Config.h11_max_incomplete_size = 256 * 1024
