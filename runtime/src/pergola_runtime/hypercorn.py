"""The application for Hypercorn's workers: `hypercorn pergola_runtime.hypercorn:application`, forwarded.py's.

Told to stop, Hypercorn tells its workers by an event, and ends all of them by a signal as soon as the first
has nothing left to do: requests in flight are cut. A worker that ignores the signal ends by the event.
"""

import signal

from pergola_runtime.forwarded import application

__all__ = ["application"]

signal.signal(signal.SIGTERM, signal.SIG_IGN)
