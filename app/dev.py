"""The whole site on this computer alone, for who only wants to look: SQLite, no service, and it reloads
itself when a file changes. `make dev` runs it.

What it keeps is in .dev/ beside app/: remove that, and the next start begins anew.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

APP = Path(__file__).resolve().parent
RUNTIME = str(APP.parent / "runtime/src")
PATIENCE = 10


def processes(port, run):
    """All that runs, by name. Another process of the site is a line here."""
    uvicorn = [
        sys.executable,
        "-m",
        "uvicorn",
        "--lifespan",
        "off",
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    gunicorn = [sys.executable, "-m", "gunicorn", "-k", "sync", "-w", "1", "--log-level", "warning"]
    return {
        "site": [sys.executable, "manage.py", "runserver", f"127.0.0.1:{port}"],
        "upstreams": [*uvicorn, "--uds", f"{run}/upstreams.sock", "upstreams.asgi:application"],
        "lab-asgi": [*uvicorn, "--uds", f"{run}/lab-asgi.sock", "lab.service:asgi"],
        "lab-wsgi": [
            *gunicorn,
            "--no-control-socket",
            "--bind",
            f"unix:{run}/lab-wsgi.sock",
            "lab.service:wsgi",
        ],
    }


def environment(state, run):
    database = f"sqlite:///{state}/db.sqlite3"
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",  # a shell may have another project's
        "DEBUG": "true",
        "DATABASE_URL": database,
        "DATABASE_DIRECT_URL": database,
        "REDIS_URL": "",
        "MEDIA_ROOT": f"{state}/media",
        "UPSTREAMS_SOCKET": f"{run}/upstreams.sock",
        "LAB_ASGI_SOCKET": f"{run}/lab-asgi.sock",
        "LAB_WSGI_SOCKET": f"{run}/lab-wsgi.sock",
        # asgi.py takes its handler from there, which on a server the release's environment has
        "PYTHONPATH": os.pathsep.join(filter(None, [RUNTIME, os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
    }


def taken(port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror
    return None


# one process for both, as most of the time of each goes into its start
PREPARE = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("seed_data", accounts=True)
"""


def prepare(env):
    """Prints the demo accounts as well; what is there already stays."""
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-v", "0", "-c", PREPARE]
    subprocess.run(command, cwd=APP, env=env, check=True)


def stop(running):
    # Ctrl-C has reached them as well; a signal to this process alone has not.
    for process in running.values():
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in running.values():
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def watch(running, port):
    """Returns when one of them ends, with its name."""
    said = False
    while True:
        for name, process in running.items():
            if process.poll() is not None:
                return name
        if not said and taken(port):
            said = True
            print(f"\n  http://localhost:{port}/   Ctrl-C stops it all.\n", flush=True)
        time.sleep(0.2)


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    port = os.environ.get("PORT") or "8000"
    if not (port.isdigit() and 0 < int(port) < 65536):
        sys.exit(f"PORT={port} is no port: make dev PORT=8001")
    if reason := taken(int(port)):
        sys.exit(f"Port {port} is not free ({reason}): make dev PORT={int(port) + 1}")
    state = Path(os.environ.get("DEV_STATE") or APP.parent / ".dev").resolve()
    state.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    running = {}
    # a directory of its own for the sockets, whose paths may not be long
    with tempfile.TemporaryDirectory(prefix="pergola-") as run:
        try:
            env = environment(state, run)
            prepare(env)
            for name, command in processes(port, run).items():
                running[name] = subprocess.Popen(command, cwd=APP, env=env)
            ended = watch(running, int(port))
        except KeyboardInterrupt:
            return
        finally:
            stop(running)
    sys.exit(f"{ended} has ended, and the others with it")


if __name__ == "__main__":
    main()
