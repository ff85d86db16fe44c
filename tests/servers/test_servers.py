"""Each server of HTTP, and Django's own handler, deployed in turn on one replica.

To whoever asks the site they are all the same (tests/smoke), and what they lose when they are stopped is what
docs/servers.md says. The last one is what the replica had before.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from faults.replica import Replica
from house import servers_table
from infra.tools import ROOT, inventory_of, play
from servers.asking import asking

KINDS = {
    "gunicorn-asgi": ("gunicorn-asgi", "lean"),
    "uvicorn": ("uvicorn", "lean"),
    "hypercorn": ("hypercorn", "lean"),
    "granian": ("granian", "lean"),
    "daphne": ("daphne", "lean"),
    "Django's handler": ("gunicorn", "django"),
    "gunicorn": ("gunicorn", "auto"),
}
# what a deploy and app-status say
OURS = "pergola_runtime: pergola_runtime's handler serves"
HANDLERS = {
    "auto": OURS,
    "lean": OURS,
    "django": "pergola_runtime: Django's own handler serves: app_handler is django",
}
RESTARTS = 3


@pytest.fixture(scope="module")
def replica(servers):
    """Deploys and restarts: nothing for a server that people use."""
    if [settings.get("machines_provider") for settings in servers.settings.values()] != ["nspawn"]:
        pytest.exit(
            f"ENV={servers.name} is not one local replica (make test-servers brings one of its own up)",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    return Replica(servers)


@pytest.fixture(scope="module")
def run(servers):
    def run(playbook, server, handler, source="", *arguments):
        """A playbook with this server, and this directory in the application's place."""
        given = {"app_http_server": server, "app_handler": handler, "app_source": str(source)}
        return play(inventory_of(servers), playbook, arguments=["-e", json.dumps(given), *arguments])

    return run


def works(done):
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def copy_of_the_sample(folder, note):
    """Another release of the same application."""
    for name in ("app", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3"))
    with (folder / "app/core/health.py").open("a") as file:
        file.write(f"\n# {note}\n")
    return folder


@pytest.fixture(scope="module", params=KINDS)
def served(request, replica, run, figures, tmp_path_factory):
    """The server set as a person sets it, and then a release brought out by it, under load."""
    name, kind = request.param, KINDS[request.param]
    folder = tmp_path_factory.mktemp("sources")
    program = f"{replica.settings['app_home']}/live/venv/bin/{kind[0].split('-')[0]}"
    if replica.run(f"test -x {program} || echo lacks it"):
        works(run("deploy", *kind, copy_of_the_sample(folder / "first", f"{name}'s packages")))
    works(run("site", *kind, "", "--tags", "app"))
    source = "" if name == list(KINDS)[-1] else copy_of_the_sample(folder / "second", name)
    with asking(replica.url, replica.authority) as clients:
        done = run("deploy", *kind, source)
        works(done)
    return SimpleNamespace(server=kind[0], handler=kind[1], deploy=clients, said=done.stdout)


def unit_of(replica):
    return f"app-web@{replica.look()['traffic']}.service"


def test_a_converge_refuses_a_server_that_the_live_release_lacks(run):
    """It would restart into nothing."""
    done = run("site", "granian", "lean")
    assert done.returncode != 0
    assert set(done.changed.values()) == {0}
    said = " ".join(done.stdout.split())
    assert "app_http_server is granian, and the live release of app has no granian" in said


def test_a_converge_refuses_fewer_connections_to_pgbouncer_than_both_slots_may_open(run):
    """Behind that limit requests are answered 500, during a deploy alone."""
    done = run("site", "gunicorn", "lean", "", "-e", "pgbouncer_max_clients=100")
    assert done.returncode != 0
    assert set(done.changed.values()) == {0}
    said = " ".join(done.stdout.split())
    may_open = re.search(r"pgbouncer_max_clients is 100, and .* may open (\d+) connections", said)
    assert int(may_open[1]) > 100


def test_the_site_is_the_same_to_whoever_asks(served):
    smoke = [sys.executable, "-m", "pytest", "-q", "tests/smoke"]
    done = subprocess.run(smoke, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]


def test_what_was_set_is_what_runs(served, replica):
    unit = unit_of(replica)
    command = replica.run(f"tr '\\0' ' ' </proc/$(systemctl show -P MainPID {unit})/cmdline")
    assert re.search(rf"\b{served.server.split('-')[0]}\b", command)
    assert ("SignalSafeASGIWorker" in command) == (served.server == "gunicorn-asgi")
    handler = replica.run(f"tr '\\0' '\\n' </proc/$(systemctl show -P MainPID {unit})/environ")
    assert f"PERGOLA_HANDLER={served.handler}" in handler


def test_a_deploy_and_the_status_say_which_handler_serves_and_why(served, replica):
    said = HANDLERS[served.handler]
    assert said in " ".join(served.said.split()).replace("''", "'")  # as YAML writes it
    assert said in replica.run("app-status")


def test_it_is_confined_and_its_socket_is_nginxs_alone(served, replica):
    said = replica.run(f"systemd-analyze security --no-pager {unit_of(replica)}")
    assert float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said)[1]) <= 1.0
    settings = replica.settings
    listening = replica.run(f"stat -c '%U:%G %a' {settings['app_runtime_directory']}/live/web.sock")
    assert listening == f"{settings['app_user']}:{settings['site_web_group']} 660"


def test_a_deploy_refuses_a_release_that_the_unit_cannot_start(served, run, replica):
    """Who goes back to a server that every release has converges first."""
    if served.server != "granian":
        return  # of the others, each release has those that this test would take
    before = replica.look()["live"]
    done = run("deploy", "gunicorn", "lean")
    assert done.returncode != 0
    assert "has no granian, which the web unit of this host starts" in " ".join(done.stdout.split())
    assert replica.look()["live"] == before


def test_the_application_learns_who_asks(served, replica):
    """By the limit of requests for each address, which lies in the cache under the address."""
    replica.get("/api/ninja/posts")
    code = "from django.core.cache import cache; print(cache._cache.get_client().keys('*api:*'))"
    keys = replica.shell(code).splitlines()[-1]
    assert re.search(r":198\.1[89]\.\d+\.\d+:\d+'", keys), keys  # the minute stands behind it
    assert not re.search(r"::\d+'", keys), keys


def test_a_stop_loses_what_the_table_says(served, replica, figures):
    """A deploy stops the old slot behind the switch; at a restart requests wait in the socket."""
    with asking(replica.url, replica.authority) as restarts:
        for _ in range(RESTARTS):
            replica.run(f"systemctl restart {unit_of(replica)}")
            assert replica.get("/readyz").status_code == 200
    for what, clients in (("deploy", served.deploy), ("restarts", restarts)):
        figures.append(
            f"{served.server}, {served.handler}, {what}: {clients.sent:,} sent, {clients.lost.total()} lost "
            f"{dict(clients.lost) or ''}"
        )
    assert not served.deploy.lost
    if servers_table()[served.server]["restart"] == "loses nothing":
        assert not restarts.lost
    assert not [what for what in restarts.lost if "seconds=" in what], "a request in flight was cut"
