"""Which cells are measured, in which order. A group's contestants run in turn, round after round."""

from dataclasses import dataclass

from bench.contestants import BASE, CONTESTANTS, ENDPOINTS

ROUNDS = 5
BASE_ROUNDS = 9  # a difference of 3 % in processor time is seen with nine, and not with five
CLIENTS = (1, 64, 512)
WARM_SECONDS = 1
BETWEEN_SECONDS = 0.6  # until a contestant is at rest again
SERVERS = ("pergola", "gunicorn-asgi", "uvicorn", "hypercorn", "granian", "daphne")


@dataclass(frozen=True)
class Group:
    endpoint: str
    clients: int
    contestants: tuple
    path: str = "direct"
    rounds: int = ROUNDS

    @property
    def seconds(self):
        """Of one cell: with many clients a slow contestant's answers need longer than a fast one's."""
        quick = 1 if self.endpoint in ("hello", "cache") else 2
        return {1: 1, 512: 3, 2000: 4}.get(self.clients, quick)

    @property
    def takes(self):
        cell = self.seconds + BETWEEN_SECONDS
        return len(self.contestants) * (self.rounds * cell + WARM_SECONDS)


FOUR = ("pergola", "stock", "wsgi", "fastapi")
THREE = ("pergola", "stock", "wsgi")  # FastAPI has no sessions
DATABASES = ("pergola-direct", "stock-direct", "stock-pool")
# What is near its target, once more at other times of the run: five rounds of shared cores move by a third.
CLOSE = (
    Group("rows", 64, ("pergola", "wsgi")),
    Group("row", 64, ("pergola", "wsgi", "fastapi")),
    Group("session", 64, ("pergola", "wsgi")),
    Group("fanout", 200, ("pergola", "fastapi")),
    Group("rows", 64, ("pergola", "wsgi")),
    Group("row", 64, ("pergola", "fastapi")),
)
# What a default run has, what the targets are about first; FULL=1 has all contestants everywhere.
DEFAULT = (
    Group("hello", 64, (*FOUR, "bare", "pergola-1", "stock-1")),
    Group(
        "row",
        64,
        (
            *("pergola", "fastapi", "pergola-prepared", "pergola-asyncdb", "wsgi", "stock"),
            *("fastapi-autocommit", "pergola-def", "pergola-8", "stock-def"),
            *(*DATABASES, "pergola-1", "stock-1"),
        ),
    ),
    Group("rows", 64, (*FOUR, "pergola-prepared", "pergola-asyncdb")),
    Group("session", 64, (*THREE, "pergola-prepared")),
    Group("fanout", 200, (*FOUR, "wsgi-64")),
    Group("cache", 64, ("pergola", "pergola-vcache", "stock")),
    Group("blocking", 64, ("pergola", "stock", "wsgi-16")),
    *CLOSE,
    Group("row", 2000, ("pergola", "stock", *DATABASES)),
    Group("hello", 64, SERVERS),
    Group("row", 64, SERVERS),
    Group("fanout", 64, (*FOUR, "wsgi-async")),
    Group("row", 64, FOUR, "nginx"),
    Group("row", 512, (*FOUR, *DATABASES)),
    Group("hello", 512, FOUR),
    Group("fanout", 512, ("pergola", "fastapi")),  # others' clients would wait for longer than a cell
    Group("session", 512, THREE),
    Group("row", 1, FOUR),
    Group("rows", 1, FOUR),
)


def against_base():
    """Each endpoint by this checkout's runtime and by that of another commit."""
    return [
        Group(endpoint, 200 if endpoint == "fanout" else 64, ("pergola", BASE), rounds=BASE_ROUNDS)
        for endpoint in ENDPOINTS
    ]


def everything():
    """The default, and what it leaves out."""
    contestants = tuple(name for name in CONTESTANTS if name != BASE)
    return DEFAULT + tuple(
        Group(endpoint, clients, contestants, path)
        for path in ("direct", "nginx")
        for endpoint in ENDPOINTS
        for clients in CLIENTS
    )


def chosen(*, full=False, only=(), contestants=(), clients=(), paths=(), rounds=ROUNDS):
    """The groups that are left; a group keeps those contestants that have such an endpoint."""
    groups = []
    for group in everything() if full else DEFAULT:
        kept = tuple(
            name
            for name in group.contestants
            if group.endpoint in CONTESTANTS[name].endpoints and (not contestants or name in contestants)
        )
        if (
            kept
            and (not only or group.endpoint in only)
            and (not clients or group.clients in clients)
            and (not paths or group.path in paths)
        ):
            new = Group(group.endpoint, group.clients, kept, group.path, rounds)
            if group in DEFAULT or new not in groups:  # what is chosen of both may be the same
                groups.append(new)
    return groups


def takes(groups):
    return sum(group.takes for group in groups)
