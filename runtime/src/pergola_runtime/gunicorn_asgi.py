"""gunicorn's own ASGI worker, which hears a stop that comes while it starts.

uvloop does not notice a signal that comes before its loop runs. gunicorn's worker hands its signals over to
the loop before it loads the application: one that is told to stop meanwhile serves on, and is killed after
the graceful timeout with what it serves. Here the signals are held back until the loop runs.
"""

import signal

from gunicorn.workers.gasgi import ASGIWorker

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class HearingASGIWorker(ASGIWorker):
    """`gunicorn -k pergola_runtime.gunicorn_asgi.HearingASGIWorker`"""

    def init_signals(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        super().init_signals()

    async def _serve(self):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        await super()._serve()
