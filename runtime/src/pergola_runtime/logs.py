"""Log lines with the id of their request, and of a length that a client cannot choose.

    LOGGING = {"formatters": {"plain": {"()": "pergola_runtime.logs.Formatter"}}, ...}

nginx makes an id for each request, writes it into its access log and sends it as X-Request-Id
(behind_nginx.py). follow_jobs() hands it on to the tasks that the request sends.
"""

import logging
from contextvars import ContextVar

request_id = ContextVar("request_id", default="-")

LINE = 1000  # characters
RECORD = 3000  # bytes of a record, a traceback included: with nginx's line, a request writes less than 6 kB


def cut(text):
    return text if len(text) <= LINE else f"{text[:LINE]}... ({len(text)} characters)"


class Formatter(logging.Formatter):
    """logging.Formatter for lines of limited length. `%(request_id)s` is the id of the record's request.

    A long record keeps the beginning of its message and the end of its traceback, which names the error.
    """

    def __init__(self, fmt="%(levelname)s %(name)s [%(request_id)s]: %(message)s", **named):
        super().__init__(fmt, **named)

    def format(self, record):
        record.request_id = getattr(record, "request_id", None) or request_id.get()
        lines = [cut(line) for line in super().format(record).splitlines()]
        if sum(len(line.encode()) + 1 for line in lines) <= RECORD:
            return "\n".join(lines)
        first = lines[0].encode()[:LINE].decode(errors="ignore")
        rest = "\n".join(lines[1:]).encode()[len(first.encode()) + 20 - RECORD :].decode(errors="ignore")
        return f"{first}\n...\n{rest}" if rest else first


def follow_jobs():
    """Give the log lines of a Celery task the id of the request that sent it.

    Call it where tasks are sent and run.
    """
    from celery import signals

    @signals.before_task_publish.connect(weak=False)
    def send_id(headers=None, **_):
        headers.setdefault("request_id", request_id.get())

    @signals.task_prerun.connect(weak=False)
    def take_id(task=None, **_):
        if not task.request.called_directly and not task.request.is_eager:
            request_id.set(getattr(task.request, "request_id", None) or "-")
