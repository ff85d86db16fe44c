"""django-tenants in a real worker: what a request reads is its own tenant's, in every part of its answer."""

import asyncio
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from tenantsite import ROWS, TENANTS
from waiting import until
from workers import HANDLERS, HERE, TESTED_SERVERS, working

REQUESTS, TOGETHER = 120, 20
# past PgBouncer, with connections that are kept; and as pgbouncer_pool_mode: session wants it
WAYS = {
    "direct": {"LEAN_PORT": "5432", "PERGOLA_CONN_MAX_AGE": "10"},
    "session pooling": {"LEAN_PORT": "6432", "LEAN_NAME": "sessions", "PERGOLA_POOL_MODE": "session"},
}


@pytest.fixture(scope="module")
def tenants(directory):
    environment = {"DJANGO_SETTINGS_MODULE": "tenantsite", "LEAN_HOST": str(directory), "LEAN_PORT": "5432"}
    command = [sys.executable, "-m", "tenantsite"]
    subprocess.run(command, env=os.environ | environment, cwd=HERE, check=True)


@pytest.fixture(scope="module", params=TESTED_SERVERS)
def http_server(request):
    return request.param


@pytest.fixture(scope="module", params=WAYS)
def way(request):
    return WAYS[request.param]


@pytest.fixture(scope="module", params=HANDLERS)
def worker(request, tenants, directory, http_server, way):
    with working(request.param, directory, server=http_server, site="tenantsite", environment=way) as one:
        yield one


def ask(worker, path):
    tenant = random.choice(TENANTS)
    status, body, _ = worker.request(path, headers={"Host": f"{tenant}.example.org"})
    assert status == 200, (body, worker.log()[-3000:])
    return tenant, body.decode().split()


@pytest.mark.parametrize(("path", "rows"), [("/plain", ROWS), ("/stream", 5 * ROWS), ("/synchronous", ROWS)])
def test_every_row_is_of_the_requests_tenant(worker, path, rows):
    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = [*pool.map(lambda _: ask(worker, path), range(REQUESTS))]
    assert {tenant for tenant, _ in answers} == set(TENANTS)
    wrong = [(tenant, read) for tenant, read in answers if read != [tenant] * rows]
    assert not wrong, wrong[:3]


def test_a_task_that_outlives_its_request_reads_no_other_tenants_rows(worker):
    """It may read the public schema's, as under Django's handler, where it has a thread of its own."""
    with ThreadPoolExecutor(TOGETHER) as pool:
        for path in ("/task", "/plain"):  # other requests use the threads meanwhile
            [*pool.map(lambda _, path=path: ask(worker, path), range(REQUESTS // 2))]
    told = []

    def all_told():
        told[:] = ask(worker, "/tasks")[1]
        return len(told) == REQUESTS // 2

    asyncio.run(until(all_told, worker.log))
    read = [(own, set(rows.split(","))) for own, rows in (one.split(":") for one in told)]
    wrong = [(own, rows) for own, rows in read if rows not in ({own}, {"public"})]
    assert not wrong, wrong[:3]
