"""A request whose client has gone, and that has not started, is dropped: an abandoned page costs nothing."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from app.servers import gunicorn, read, send
from waiting import wait_until

HERE = Path(__file__).parent
CLIENTS = 100


@pytest.fixture
def server(tmp_path):
    environment = {"PERGOLA_APPLICATION": "gonesite:application", "PERGOLA_HANDLER": "lean"}
    environment |= {"RAN": str(tmp_path / "ran"), "DJANGO_SETTINGS_MODULE": ""}
    serving = "pergola_runtime.serving:application"
    with gunicorn(tmp_path / "web.sock", serving, cwd=HERE, env=environment) as running:
        running.get()
        yield running


def ran(server):
    return (server.path.parent / "ran").read_text().count("\n")


@pytest.mark.parametrize("clients", ["go", "stay"])
def test_requests_of_clients_that_went_are_dropped_before_they_start(server, clients):
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(CLIENTS)]
        for one in connections:
            send(one)
        wait_until(lambda: ran(server) > 1, "the first of them to run")
        if clients == "stay":
            answers = [read(one) for one in connections]
            assert all(b"computed" in answer for answer in answers), [
                a for a in answers if b"computed" not in a
            ][:3]
    server.get()  # behind all of them
    count = ran(server) - 2
    print(f"of {CLIENTS} requests {count} ran")
    assert count == CLIENTS if clients == "stay" else count < CLIENTS / 2
