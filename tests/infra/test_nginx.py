import re
import ssl
from pathlib import Path

import httpx
import pytest
from infra.tools import MORE_THAN_SYSTEMD_STARTS, children, killed, main_process, stopped
from waiting import wait_until

pytestmark = pytest.mark.hosts("edge")
EVIDENCE = ["nginx", "app-web@*"]


@pytest.fixture
def site(settings):
    authority = Path(settings["secrets_authority_certificate"])
    context = ssl.create_default_context(cafile=authority if authority.exists() else None)
    with httpx.Client(base_url=settings["site_url"], verify=context, timeout=20) as client:
        yield client


def test_its_workers_have_no_rights(host, settings):
    """They parse what strangers send."""
    workers = children(host, main_process(host, "nginx.service"))
    assert workers
    for worker in workers:
        status = host.check_output("cat /proc/%s/status", str(worker))
        assert host.check_output("stat -c %%U /proc/%s", str(worker)) == "www-data"
        assert int(re.search(r"CapEff:\t(\w+)", status)[1], 16) == 0
        assert re.search(r"NoNewPrivs:\t(\d)", status)[1] == "1"


def test_what_is_on_disk_is_what_it_would_start_with(host):
    """A restart must not be the moment when a mistake shows."""
    assert host.run("nginx -t").rc == 0


@pytest.mark.disruptive
def test_static_files_come_from_disk(host, settings, site):
    """With the application stopped they are served all the same, and a page of nginx's own says 502."""
    page = site.get("/")
    path = re.search(r'href="(/static/[^"]+\.css)"', page.text)[1]
    stops = settings["app_drain_seconds"] + 20  # TimeoutStopSec is ten seconds more than the drain
    with stopped(host, "app.target"):
        wait_until(lambda: site.get("/livez").status_code == 502, "the application to answer no more", stops)
        assert site.get(path).status_code == 200
        answer = site.get("/")
        assert answer.status_code == 502
        assert settings["nginx_unavailable_title"] in answer.text
        assert int(answer.headers["retry-after"]) < 60
    wait_until(lambda: site.get("/readyz").status_code == 200, "the site to be ready again")


@pytest.mark.disruptive
def test_killed_it_comes_back(host, site):
    for _ in range(MORE_THAN_SYSTEMD_STARTS):
        killed(host, "nginx.service")

    def ready():
        try:
            return site.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(ready, "the site to be ready again")
