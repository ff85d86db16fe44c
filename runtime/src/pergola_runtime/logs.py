"""Log lines with the id of their request, and of a length that a client cannot choose.

A server's log records are cut, whichever formatter the project has (limit_streams()). They name their request
where it takes this one:

    LOGGING = {"formatters": {"plain": {"()": "pergola_runtime.logs.Formatter"}}, ...}

nginx makes an id for each request, writes it into its access log and sends it as X-Request-Id
(behind_nginx.py). follow_jobs() hands it on to the tasks that the request sends.
"""

import io
import logging
import sys
from contextvars import ContextVar

request_id = ContextVar("request_id", default="-")
follows_jobs = False  # whether follow_jobs() was called

LINE = 1000  # characters
RECORD = 2700  # bytes of a record, a traceback included: with nginx's line, a request writes less than 4 kB


def cut(text):
    return text if len(text) <= LINE else f"{text[:LINE]}... ({len(text)} characters)"


def utf8(text):
    """The text's bytes. A client's text may have what UTF-8 has not, such as half of a surrogate pair."""
    return text.encode(errors="backslashreplace")


def shortened(text):
    """At most RECORD bytes: the beginning of the message and the end of the traceback, with the error."""
    whole = utf8(text)
    if len(whole) <= RECORD:
        return whole.decode()
    first, *rest = whole.split(b"\n", 1)
    first = first[:LINE]
    # less by the two ends of lines here, and by one that a handler adds
    kept = [first, b"...", *(after[len(first) + 6 - RECORD :] for after in rest)]
    return b"\n".join(kept).decode(errors="ignore")


class Limited(io.TextIOWrapper):
    """Shortens each write(). logging writes a record, with its traceback, in one."""

    def __init__(self, stream):
        self.stream = stream  # whose finalizer would close the buffer
        super().__init__(
            stream.buffer,
            stream.encoding,
            "backslashreplace",
            line_buffering=True,
            write_through=stream.write_through,
        )

    def write(self, text):
        super().write(shortened(text))
        return len(text)


def limit_streams():
    """Limit the length of log records, of the server's own loggers as well.

    Call it before the application is loaded: a handler keeps the stream that it was made with.
    """
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", ())}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:  # and not what a test or a debugger has put there
            stream.flush()
            limited = Limited(stream)
            setattr(sys, name, limited)
            if name == "stderr":
                sys.__stderr__ = limited  # where Celery writes its log
            for handler in handlers:
                if getattr(handler, "stream", None) is stream:
                    handler.setStream(limited)


class Formatter(logging.Formatter):
    """logging.Formatter for lines of limited length. `%(request_id)s` is the id of the record's request."""

    def __init__(self, fmt="%(levelname)s %(name)s [%(request_id)s]: %(message)s", **named):
        super().__init__(fmt, **named)

    def format(self, record):
        record.request_id = getattr(record, "request_id", None) or request_id.get()
        return shortened("\n".join(cut(line) for line in super().format(record).splitlines()))


class TaskFormatter(Formatter):
    """For the loggers of Celery's tasks: with the task's name and id."""

    def __init__(self):
        super().__init__("%(levelname)s %(task_name)s[%(task_id)s] [%(request_id)s]: %(message)s")

    def format(self, record):
        from celery import current_task

        record.task_name = current_task.name if current_task else "-"
        record.task_id = current_task.request.id if current_task else "-"
        return super().format(record)


def follow_jobs():
    """Give the log lines of a Celery task the id of the request that sent it.

    Call it where tasks are sent and run; a second call changes nothing. A worker's log has the formats above,
    unless the project sets its own.
    """
    global follows_jobs
    if follows_jobs:
        return
    follows_jobs = True
    from celery import signals
    from celery.app.defaults import DEFAULT_PROCESS_LOG_FMT, DEFAULT_TASK_LOG_FMT

    # a project's own formats stay
    formats = {DEFAULT_PROCESS_LOG_FMT: Formatter(), DEFAULT_TASK_LOG_FMT: TaskFormatter()}

    @signals.before_task_publish.connect(weak=False)
    def send_id(headers=None, **_):
        headers.setdefault("request_id", request_id.get())

    @signals.task_prerun.connect(weak=False)
    def take_id(task=None, **_):
        if not task.request.called_directly and not task.request.is_eager:
            request_id.set(getattr(task.request, "request_id", None) or "-")

    @signals.after_setup_logger.connect(weak=False)
    @signals.after_setup_task_logger.connect(weak=False)
    def format_log(logger=None, format=None, **_):
        if format in formats:
            for handler in logger.handlers:
                handler.setFormatter(formats[format])
