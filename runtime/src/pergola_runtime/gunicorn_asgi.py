"""gunicorn's own ASGI worker, which also handles a SIGTERM that it receives during startup.

uvloop loses a signal that arrives before its loop runs. gunicorn's worker registers its signal handlers with
the loop before it loads the application. A SIGTERM in between has no effect: the worker goes on serving, and
is killed after the graceful timeout, with its requests. Here the signals are blocked until the loop runs.
"""

import signal

from gunicorn.workers.gasgi import ASGIWorker

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class SignalSafeASGIWorker(ASGIWorker):
    """`gunicorn -k pergola_runtime.gunicorn_asgi.SignalSafeASGIWorker`"""

    def init_signals(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        super().init_signals()

    async def _serve(self):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        await super()._serve()


# The name in units of version 0.6, which a release of this version starts under before the next converge.
HearingASGIWorker = SignalSafeASGIWorker
