"""Which cells are measured, in which order. A group's contestants run in turn, round after round."""

from dataclasses import dataclass

from bench.contestants import CONTESTANTS, ENDPOINTS

ROUNDS = 5
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
        return 2 if self.clients <= 64 else 3 if self.clients <= 512 else 6

    @property
    def takes(self):
        cell = self.seconds + BETWEEN_SECONDS
        return len(self.contestants) * (self.rounds * cell + WARM_SECONDS)


# what a default run has; FULL=1 has all contestants everywhere
DEFAULT = (
    Group("hello", 64, ("pergola", "stock", "wsgi", "fastapi", "bare")),
    Group("row", 64, ("pergola", "pergola-asyncdb", "stock", "wsgi", "fastapi")),
    Group("rows", 64, ("pergola", "pergola-asyncdb", "stock", "wsgi", "fastapi")),
    Group("session", 64, ("pergola", "stock", "wsgi")),
    Group("fanout", 200, ("pergola", "stock", "wsgi", "wsgi-64", "fastapi")),
    Group("row", 2000, ("pergola", "pergola-direct", "stock", "stock-direct", "stock-pool")),
    Group("row", 64, ("pergola", "pergola-def", "stock", "stock-def", "wsgi", "wsgi-async")),
    Group("row", 64, ("pergola", "pergola-direct", "stock", "stock-direct", "stock-pool")),
    Group("row", 512, ("pergola", "pergola-direct", "stock", "stock-direct", "stock-pool")),
    Group("hello", 64, ("pergola", "pergola-1", "stock", "stock-1")),
    Group("row", 64, ("pergola", "pergola-1", "stock", "stock-1")),
    Group("hello", 64, SERVERS),
    Group("row", 64, SERVERS),
    Group("fanout", 64, ("pergola", "stock", "wsgi", "wsgi-async", "fastapi")),
    *(
        Group(endpoint, clients, ("pergola", "stock", "wsgi", "fastapi"))
        for clients in (1, 512)
        for endpoint in ("hello", "row", "rows", "fanout")
    ),
    *(Group("session", clients, ("pergola", "stock", "wsgi")) for clients in (1, 512)),
    *(Group(endpoint, 64, ("pergola", "stock", "wsgi", "fastapi"), "nginx") for endpoint in ("hello", "row")),
)


def everything():
    first = DEFAULT
    rest = tuple(
        Group(endpoint, clients, tuple(CONTESTANTS), path)
        for path in ("direct", "nginx")
        for endpoint in ENDPOINTS
        for clients in CLIENTS
    )
    return first + rest


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
            if new not in groups:
                groups.append(new)
    return groups


def takes(groups):
    return sum(group.takes for group in groups)
