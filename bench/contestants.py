"""Who runs: a service is what listens, a contestant is a service and the views that it is asked for.

Every service has the same number of worker processes, and what its own documentation calls production
settings. What each is: README.md.
"""

from dataclasses import dataclass, field, replace

ENDPOINTS = ("hello", "row", "rows", "fanout", "session", "cache", "blocking")
WORKERS = 2
GUNICORN = "gunicorn -w {workers} -b 127.0.0.1:{port} --backlog 4096 --timeout 120 --no-control-socket"
DJANGO = "bench.project.asgi:application"
SERVING = "pergola_runtime.serving:application"  # as it is deployed; it loads DJANGO
# connections live with their threads
LEAN = {
    "PERGOLA_APPLICATION": DJANGO,
    "PERGOLA_HANDLER": "lean",
    "PERGOLA_CONN_MAX_AGE": "10",
    "PERGOLA_THREADS": "3",
}
STOCK = {"PERGOLA_HANDLER": "django", "PERGOLA_CONN_MAX_AGE": "0"}
# without PgBouncer there is no pool mode, and nothing that the runtime would refuse because of it
DIRECT = {"BENCH_DATABASE": "direct", "PERGOLA_POOL_MODE": ""}


@dataclass(frozen=True)
class Service:
    name: str
    command: str
    environment: dict = field(default_factory=dict)
    workers: int = WORKERS
    processes: int = 1  # of the command itself, which then share the listening socket {fd}
    runtime: str = "runtime"  # the folder that its pergola_runtime comes from


def lean(name, workers=WORKERS, application=SERVING, **environment):
    worker = "-k pergola_runtime.gunicorn.DrainingUvicornWorker"
    return Service(name, f"{GUNICORN} {worker} {application}", LEAN | environment, workers)


def stock(name, workers=WORKERS, **environment):
    return Service(name, f"{GUNICORN} -k uvicorn_worker.UvicornWorker {DJANGO}", STOCK | environment, workers)


def gthread(name, threads):
    command = f"{GUNICORN} -k gthread --threads {threads} --keep-alive 75 bench.project.wsgi:application"
    return Service(name, command, {"BENCH_CONN_MAX_AGE": "60"})


SERVICES = {
    service.name: service
    for service in (
        lean("pergola"),
        lean("pergola-8", PERGOLA_THREADS="8"),
        lean("pergola-prepared", BENCH_PREPARED="yes"),
        lean("pergola-vcache", BENCH_CACHE="django_vcache.backend.ValkeyCache"),
        stock("stock"),
        gthread("wsgi", 8),
        gthread("wsgi-16", 16),
        gthread("wsgi-64", 64),
        Service("fastapi", f"{GUNICORN} -k uvicorn_worker.UvicornWorker bench.project.fast:application"),
        Service(
            "fastapi-autocommit",
            f"{GUNICORN} -k uvicorn_worker.UvicornWorker bench.project.fast:application",
            {"BENCH_AUTOCOMMIT": "yes"},
        ),
        Service("bare", f"{GUNICORN} -k uvicorn_worker.UvicornWorker bench.project.bare:application"),
        # --- the other servers, with the same application as pergola
        Service("gunicorn-asgi", f"{GUNICORN} -k asgi {SERVING}", LEAN),
        Service(
            "uvicorn",
            "uvicorn --workers {workers} --host 127.0.0.1 --port {port} --backlog 4096 --no-access-log "
            f"--lifespan off --ws none --log-level warning {SERVING}",
            LEAN,
        ),
        Service(
            "hypercorn",
            f"hypercorn -w {{workers}} -k uvloop -b 127.0.0.1:{{port}} --backlog 4096 {SERVING}",
            LEAN,
        ),
        Service(
            "granian",
            "granian --workers {workers} --host 127.0.0.1 --port {port} --backlog 4096 --loop uvloop "
            f"--interface asginl --no-ws --log-level warning {SERVING}",
            LEAN,
        ),
        # one process each, on one socket
        Service("daphne", f"daphne --fd {{fd}} --verbosity 0 {SERVING}", LEAN, processes=WORKERS),
        # --- the ways to the database
        lean("pergola-direct", **DIRECT),  # its threads are together fewer than max_connections
        stock("stock-direct", **DIRECT),
        stock("stock-pool", **DIRECT, BENCH_POOL="10"),  # connections of each worker, as PgBouncer has in all
        # --- the runtime of another commit: make bench BASE=
        replace(lean("base", application=DJANGO), runtime="base"),  # it may be older than SERVING
        # --- scaling
        lean("pergola-1", workers=1),
        stock("stock-1", workers=1),
    )
}


@dataclass(frozen=True)
class Contestant:
    name: str
    service: str
    views: str = "async"
    endpoints: tuple = ENDPOINTS

    def path(self, endpoint, row):
        return f"/{self.views}/{endpoint}" + (f"/{row}" if endpoint == "row" else "")


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("pergola", "pergola"),
        Contestant("pergola-def", "pergola", "def"),
        Contestant("pergola-8", "pergola-8", endpoints=("row", "rows", "session")),
        Contestant("pergola-prepared", "pergola-prepared", endpoints=("row", "rows", "session")),
        Contestant("pergola-asyncdb", "pergola", "asyncdb", ("row", "rows")),
        Contestant("pergola-vcache", "pergola-vcache", endpoints=("cache",)),
        Contestant("stock", "stock"),
        Contestant("stock-def", "stock", "def"),
        Contestant("wsgi", "wsgi", "def"),
        Contestant("wsgi-async", "wsgi"),
        Contestant("wsgi-16", "wsgi-16", "def", ("blocking",)),
        Contestant("wsgi-64", "wsgi-64", "def"),
        Contestant("fastapi", "fastapi", endpoints=("hello", "row", "rows", "fanout", "cache")),
        Contestant("fastapi-autocommit", "fastapi-autocommit", endpoints=("row", "rows")),
        Contestant("bare", "bare", endpoints=("hello",)),
        *(Contestant(name, name) for name in ("gunicorn-asgi", "uvicorn", "hypercorn", "granian", "daphne")),
        *(
            Contestant(name, name, endpoints=("row",))
            for name in ("pergola-direct", "stock-direct", "stock-pool")
        ),
        *(Contestant(name, name, endpoints=("hello", "row")) for name in ("pergola-1", "stock-1")),
        Contestant("base", "base"),
    )
}
BASE = "base"  # runs only where a commit is named
