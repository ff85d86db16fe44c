"""A request whose client has gone, and that has not started, is dropped: an abandoned page costs nothing."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from app.servers import gunicorn, read, send
from waiting import wait_until

HERE = Path(__file__).parent
CLIENTS, THREADS = 100, 3


@pytest.fixture
def server(tmp_path):
    environment = {"PERGOLA_APPLICATION": "gonesite:application", "PERGOLA_HANDLER": "lean"}
    environment |= {"PERGOLA_THREADS": str(THREADS), "DJANGO_SETTINGS_MODULE": ""}
    environment |= {name: str(tmp_path / name) for name in ("RAN", "GO", "BEGAN", "ENDED")}
    serving = "pergola_runtime.serving:application"
    with gunicorn(tmp_path / "web.sock", serving, cwd=HERE, env=environment) as running:
        yield running


@pytest.mark.parametrize("clients", ["go", "stay"])
def test_requests_of_clients_that_went_are_dropped_before_they_start(server, tmp_path, clients):
    def lines(name):
        return (tmp_path / name).read_text().count("\n") if (tmp_path / name).exists() else 0

    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(CLIENTS)]
        for one in connections:
            send(one)
        wait_until(lambda: lines("BEGAN") == CLIENTS, lambda: f"{lines('BEGAN')} requests")
        wait_until(lambda: lines("RAN") == THREADS, lambda: f"{lines('RAN')} to run")
        if clients == "stay":
            (tmp_path / "GO").touch()
            assert all(b"served" in read(one) for one in connections)
    ended = CLIENTS if clients == "stay" else CLIENTS - THREADS
    wait_until(lambda: lines("ENDED") == ended, lambda: f"{lines('ENDED')} of {ended} requests to end")
    (tmp_path / "GO").touch()
    assert b"served" in server.get()  # behind all of them
    assert lines("RAN") == (CLIENTS if clients == "stay" else THREADS) + 1
