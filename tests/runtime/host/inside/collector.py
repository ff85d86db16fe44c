"""Receives over HTTP what an agent sends, each agent by its own protocol, and keeps the decoded records."""

import contextlib
import gzip
import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def sentry_records(path, body):
    """The items of an envelope: after its header line, for each item a header line and its payload."""
    _, _, rest = body.partition(b"\n")
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        size = header.get("length", rest.find(b"\n"))
        yield header["type"], json.loads(rest[:size])
        rest = rest[size:].removeprefix(b"\n")


def otlp_records(path, body):
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest() if path.endswith("/traces") else ExportMetricsServiceRequest()
    message.ParseFromString(body)
    sent = MessageToDict(message)
    for resource in sent.get("resourceSpans", []):
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield "span", span | {"scope": scope["scope"]["name"]}
    for resource in sent.get("resourceMetrics", []):
        for scope in resource["scopeMetrics"]:
            for metric in scope["metrics"]:
                yield "metric", metric | {"scope": scope["scope"]["name"]}


def elastic_records(path, body):
    """Elastic's intake protocol, version 2: one JSON object for each line, whose only key is its kind."""
    for line in body.splitlines():
        yield from json.loads(line).items()


def new_relic_records(path, body):
    """The payload of each call of its collector protocol; `method` is the last part of the path."""
    yield path.rpartition("/")[2], json.loads(body)


PROTOCOLS = {
    "sentry": sentry_records,
    "opentelemetry": otlp_records,
    "elastic": elastic_records,
    "newrelic": new_relic_records,
}
DECODERS = {"gzip": gzip.decompress, "deflate": zlib.decompress, "identity": bytes}


class Collector:
    def __init__(self, agent):
        self.records = []
        self.errors = []
        collector, decode = self, PROTOCOLS[agent]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                """Nothing."""

            def do_GET(self):
                self.answer()

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    body = DECODERS[self.headers.get("Content-Encoding", "identity")](body)
                    collector.records.extend(decode(self.path, body))
                except Exception as error:
                    collector.errors.append(f"{self.path}: {error!r}: {body[:1000]}")
                self.answer()

            def answer(self):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextlib.contextmanager
def collecting(agent):
    """A collector for this agent's protocol, on a free port of 127.0.0.1."""
    collector = Collector(agent)
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        thread.join()
        collector.server.server_close()
