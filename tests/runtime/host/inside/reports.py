"""What an agent sent, without what is random: times, ids, the names of threads and directories, the order.

Each record becomes one text, so that two reports compare as multisets. Ids that refer to another record are
replaced by the names of what they refer to: a span has the path of its parents' names.
"""

import json
import re
from collections import defaultdict

# Where the handlers differ: between the event loop and a thread, and in the code that calls the application.
ON_THE_WAY = re.compile(
    r"(asgiref|asyncio|concurrent\.futures|contextlib|functools|threading|uvloop|pergola_runtime"
    r"|django\.core\.handlers\.asgi)\b"
)
FILES_ON_THE_WAY = re.compile(
    r"/(asgiref|asyncio|concurrent|contextlib\.py|functools\.py|threading\.py|pergola_runtime"
    r"|django/core/handlers/asgi\.py)\b"
)
# From 6.1 on Django handles a request in a task group. An error of a stream has the group's exception
# as its context, which the runtime's handler does not make.
GROUP = "unhandled errors in a TaskGroup"
FRAME = re.compile(r'File "([^"]+)", line \d+, in \w+')
RANDOM = [
    (re.compile(r"0x[0-9a-f]{6,}"), "0x"),
    (re.compile(r"/[\w/]+/lean-\w+"), "directory"),
    (re.compile(r"((?:sessionid|csrftoken)=)\w+"), r"\1value"),
    (re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}"), "trace-span"),
    (re.compile(r"(sentry-(?:trace_id|sample_rand)=)[0-9a-f.]+"), r"\1value"),
]


def scrubbed(value, dropped):
    if isinstance(value, dict):
        return {key: scrubbed(one, dropped) for key, one in value.items() if key not in dropped}
    if isinstance(value, list):
        return [scrubbed(one, dropped) for one in value]
    if isinstance(value, str):
        if "Traceback (most recent call last)" in value:  # such as a line of Granian's log
            value = f"{value.partition(chr(10))[0]} {frames_in(value)} {value.rpartition(chr(10))[2]}"
        for pattern, name in RANDOM:
            value = pattern.sub(name, value)
    return value


def text(kind, value, dropped=()):
    return f"{kind} {json.dumps(scrubbed(value, dropped), sort_keys=True)}"


def frames_in(trace):
    """The frames of a formatted traceback, each once: with an exception group some are there twice."""
    return sorted({found[0] for found in FRAME.finditer(trace) if not FILES_ON_THE_WAY.search(found[1])})


def with_paths(records, identify):
    """Each record with the names from its outermost parent to itself.

    `identify` returns a record's id, its parent's id and its name.
    """
    known = {identity: (parent, name) for identity, parent, name in map(identify, records)}
    for record in records:
        names = []
        identity = identify(record)[0]
        while identity in known:
            identity, name = known[identity]
            names.append(name)
        yield " / ".join(names[::-1]), record


# Sentry


SENTRY = {
    "abs_path", "asctime", "event_id", "parent_span_id", "sessionid", "span_id", "start_timestamp", "started",
    "sys.argv", "thread.id", "thread.name", "timestamp", "trace_id", "sid",
}  # fmt: skip


def of_sentry(records):
    sessions = defaultdict(int)
    for kind, record in records:
        if kind == "sessions":
            for aggregate in record["aggregates"]:
                for name in aggregate.keys() - {"started"}:
                    sessions[name] += aggregate[name]
            continue
        raised = record.get("exception", {}).get("values", [])
        if any(GROUP in one["value"] for one in raised):
            raised[:] = [one for one in raised if GROUP not in one["value"]]
        for exception in raised:
            frames = exception.get("stacktrace", {}).get("frames", [])
            frames[:] = [one for one in frames if not ON_THE_WAY.match(one["module"] or "")]
            for frame in frames:
                if not frame.get("in_app"):
                    frame.pop("vars", None)
        if kind == "transaction":
            record["spans"] = sorted(
                text(path, span, SENTRY) for path, span in with_paths(record["spans"], sentry_span)
            )
        yield text(kind, record, SENTRY)
    yield text("sessions", sessions)


def sentry_span(span):
    return span["span_id"], span["parent_span_id"], f"{span['op']} {span['description']}"


# OpenTelemetry


# Of receive() only what brings the request. A handler also listens for the end of the connection, of which
# servers tell at different times; the runtime's listens only in requests that last.
REQUEST = {"stringValue": "http.request"}
OTLP = {"startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "traceId", "spanId", "parentSpanId"}


def of_opentelemetry(records):
    spans = [record for kind, record in records if kind == "span"]
    for path, span in with_paths(spans, lambda one: (one["spanId"], one.get("parentSpanId"), one["name"])):
        for described in [span, *span.get("events", [])]:
            attributes = {one["key"]: one["value"] for one in described.get("attributes", [])}
            if trace := attributes.get("exception.stacktrace"):
                attributes["exception.stacktrace"] = frames_in(trace["stringValue"])
            described["attributes"] = attributes
        if not path.endswith(" http receive") or span["attributes"].get("asgi.event.type") == REQUEST:
            yield text(f"span {path}", span, OTLP)
    for kind, metric in records:
        if kind == "metric":
            for point in (metric.get("sum") or metric["histogram"])["dataPoints"]:
                attributes = {one["key"]: one["value"] for one in point["attributes"]}
                count = point.get("count", point.get("asInt"))
                yield text(f"metric {metric['scope']} {metric['name']}", {"count": count, **attributes})


# Elastic


ELASTIC = {
    "abs_path", "duration", "id", "parent_id", "pid", "timestamp", "trace_id", "transaction_id", "stacktrace",
}  # fmt: skip


def of_elastic(records):
    kinds = {id(record): kind for kind, record in records}
    kept = [record for kind, record in records if kind != "metadata"]
    for path, record in with_paths(kept, lambda one: (one["id"], one.get("parent_id"), one.get("name", ""))):
        raised = record.get("exception") or record.get("log") or {}
        if any(GROUP in one["message"] for one in raised.get("cause", [])):
            del raised["cause"]
        record["frames"] = [
            {name: one[name] for name in ("module", "function", "lineno")}
            | ({} if one["library_frame"] else {"vars": one.get("vars")})
            for one in raised.get("stacktrace", [])
            if not ON_THE_WAY.match(one["module"] or "")
        ]
        yield text(f"{kinds[id(record)]} {path}", record, ELASTIC)


# New Relic


NEW_RELIC = {
    "apdexPerfZone", "databaseDuration", "duration", "eventLoopTime", "eventLoopWait", "guid",
    "nr.transactionGuid", "parentId", "priority", "span.id", "spanId", "timestamp", "totalTime", "trace.id",
    "traceId", "transactionId",
}  # fmt: skip
NEW_RELIC_LINES = re.compile(r"handler serves|Started server process")


def of_new_relic(records):
    sent = dict(records)
    for kind in ("analytic_event_data", "error_event_data", "custom_event_data"):
        for event in sent[kind][2]:
            yield text(kind, event, NEW_RELIC)
    spans = sent["span_event_data"][2]
    assert sent["span_event_data"][1]["events_seen"] == len(spans)
    for path, span in with_paths(spans, new_relic_span):
        yield text(f"span {path}", span, NEW_RELIC)
    for _, *error in sent["error_data"][1]:
        error[3]["stack_trace"] = frames_in("\n".join(error[3]["stack_trace"]))
        yield text("error", error, NEW_RELIC)
    for line in sent["log_event_data"][0]["logs"]:
        if not NEW_RELIC_LINES.search(line["message"]):
            yield text("log", line, NEW_RELIC)
    for metric, values in sent["metric_data"][3]:
        if not metric["name"].startswith(("CPU", "EventLoop", "Memory", "Supportability")):
            # of Apdex the first three are the satisfied, tolerating and frustrated, by the time that it took
            count = sum(values[:3]) if metric["name"].startswith("Apdex") else values[0]
            yield text("metric", [metric, count])


def new_relic_span(span):
    intrinsics = span[0]
    return intrinsics["guid"], intrinsics.get("parentId"), intrinsics["name"]


NORMALISERS = {
    "elastic": of_elastic,
    "newrelic": of_new_relic,
    "opentelemetry": of_opentelemetry,
    "sentry": of_sentry,
}


def normalised(agent, records):
    """One text for each record."""
    return list(NORMALISERS[agent](records))
