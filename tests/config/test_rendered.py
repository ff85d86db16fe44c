"""The rendered files, put before the programs that read them."""

import json
import re
import shlex
import shutil
import subprocess

import pytest
from house import ROOT
from pergola_runtime.overlay import DATABASES_OF_REDIS

UNITS = "etc/systemd/system"
INSTANCES = {
    "app-web@.socket": "app-web@blue.socket",
    "app-web@.service": "app-web@blue.service",
    "app-websocket@.service": "app-websocket@blue-1.service",
}
SERVICES = [
    "app-beat.service",
    "app-clear.service",
    "app-live.service",
    "app-sidecar.service",
    "app-web@blue.service",
    "app-websocket@blue-1.service",
    "app-worker.service",
]

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")


def parsed_by_nginx(server):
    """The configuration as nginx's grammar has it, by its vendor's parser: contexts, arguments, names."""
    crossplane = pytest.importorskip("crossplane")
    main = server / "etc/nginx/nginx.conf"
    # paths of the server, seen in this folder; Debian brings modules and types
    for path in (server / "etc/nginx").rglob("*.conf"):
        path.write_text(path.read_text().replace(" /etc/nginx/", f" {server}/etc/nginx/"))
    (server / "etc/nginx/mime.types").write_text("types {}\n")
    parsed = crossplane.parse(str(main), strict=False)
    # the parser is older than HTTP/3 in nginx
    known_to_nginx = ("brotli", "http2", "http3", "quic")
    errors = [error for error in parsed["errors"] if not any(word in str(error) for word in known_to_nginx)]
    assert errors == []
    return parsed["config"]


def test_nginx_takes_its_configuration(server):
    """A converge runs `nginx -t`."""
    assert len(parsed_by_nginx(server)) > 8


def test_each_place_that_passes_requests_on_removes_headers(server):
    """A location with a proxy_set_header of its own takes none of those around it."""

    def passing(block):
        for one in block:
            names = [each["directive"] for each in one.get("block", [])]
            if "proxy_pass" in names:
                yield one
            yield from passing(one.get("block", []))

    found = [one for file in parsed_by_nginx(server) for one in passing(file["parsed"])]
    assert len(found) >= 4
    for one in found:
        included = [each["args"][0] for each in one["block"] if each["directive"] == "include"]
        assert any(name.endswith("snippets/proxy.conf") for name in included), one["args"]


def test_a_websocket_holds_no_buffers_for_large_headers(server, settings):
    """They would be held for as long as it lives."""
    (file,) = [one for one in parsed_by_nginx(server) if one["file"].endswith("sites/app.conf")]
    (site,) = [one["block"] for one in file["parsed"]]
    (websocket,) = [one["block"] for one in site if one["args"] == [settings["app_websocket_path"]]]

    def buffer(block):
        return [one["args"] for one in block if one["directive"] == "proxy_buffer_size"]

    assert (buffer(site), buffer(websocket)) == ([["40k"]], [["4k"]])


def test_nginxs_own_pages_show_their_texts_and_load_nothing(server):
    page = (server / "etc/nginx/pages/maintenance.html").read_text()
    assert "<h1>Back &lt;soon&gt;</h1>" in page
    assert not re.search(r"https?:|\bsrc=|url\(|@import|<link|<script", page)
    assert json.loads((server / "etc/nginx/pages/maintenance.json").read_text()) == {
        "title": "Back <soon>",
        "detail": 'In "five" & more',
    }


def put_programs(server):
    """What the units run, as empty programs, so that systemd-analyze looks at everything else."""
    for path in (server / UNITS).glob("*.service"):
        for program in re.findall(r"^ExecStart=(\S+)", path.read_text(), re.M):
            file = server / program.replace("%i", "blue").lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
            file.chmod(0o755)


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_a_unit_is_rated_safe(server, unit):
    """systemd's own measure of a sandbox, 0 (best) to 10, with the drop-in for all app-* services."""
    template = unit if (server / UNITS / unit).exists() else re.sub(r"@.*\.", "@.", unit)
    merged = (server / UNITS / template).read_text()
    own = server / UNITS / f"{unit}.d/sandbox.conf"
    merged += (own if own.exists() else server / UNITS / "app-.service.d/sandbox.conf").read_text()
    path = server.parent / "merged" / unit
    path.parent.mkdir(exist_ok=True)
    path.write_text(merged)
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", rated.stdout)
    assert exposure, rated.stdout + rated.stderr
    assert float(exposure[1]) <= 1.0, rated.stdout


def systemds_complaints(server):
    put_programs(server)
    units = []
    for path in sorted((server / UNITS).iterdir()):
        if path.is_file():
            name = INSTANCES.get(path.name, path.name)
            units.append(name)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", f"--root={server}", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    words = r"Unknown|Failed to parse|Invalid|Missing|not absolute|ignoring"
    return [line for line in said.stderr.splitlines() if re.search(words, line)]


@needs_systemd
def test_systemd_takes_every_unit(server):
    """A misspelt directive is a warning to systemd, which goes on without it: here it is an error."""
    assert systemds_complaints(server) == []


def test_values_with_quotes_reach_the_application_unchanged(server):
    line = re.search(r"^GREETING=(.*)$", (server / "etc/app/app.env").read_text(), re.M)[1]
    assert line == r'"a \"quoted\" \\ word"'


def test_passwords_are_nowhere_but_in_the_environment_file(server):
    holding = [
        str(path.relative_to(server))
        for path in server.rglob("*")
        if path.is_file() and "s3cret" in path.read_text()
    ]
    assert holding == ["etc/app/app.env"]


def test_the_pools_of_all_instances_fit_into_what_postgresql_accepts(server, settings):
    pool = int(
        re.search(r"default_pool_size = (\d+)", (server / "etc/pgbouncer/pgbouncer.ini").read_text())[1]
    )
    accepted = (server / "etc/postgresql/17/main/conf.d/pergola.conf").read_text()
    most = pool * settings["pgbouncer_instances"] + 20
    assert int(re.search(r"max_connections = (\d+)", accepted)[1]) >= most


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_pgbouncer_takes_what_the_threads_of_both_slots_may_open(settings_with, cores):
    """With the defaults; more is refused before anything is changed."""
    known = settings_with(ansible_facts={"memtotal_mb": 4096, "processor_nproc": cores})
    source = (ROOT / "runtime/src/pergola_runtime/threads.py").read_text()
    web, websocket = (
        int(re.search(rf"^{name} = ([\d_]+)", source, re.M)[1]) * known[processes]
        for name, processes in (("MOST", "app_web_workers"), ("SOCKETS", "app_websocket_processes"))
    )
    assert known["app_database_connections"] == 2 * (web + websocket)
    assert known["app_database_connections"] <= known["pgbouncer_max_clients"]


def test_redis_has_the_databases_that_the_overlay_takes(server):
    (number,) = re.findall(r"^databases (\d+)$", (server / "etc/redis/redis.conf").read_text(), re.M)
    assert int(number) == DATABASES_OF_REDIS


def test_with_session_pooling_no_connection_is_kept(server_with):
    """Each kept one would hold a server connection, of which there are few."""
    server = server_with(pgbouncer_pool_mode="session")
    assert "\npool_mode = session\n" in (server / "etc/pgbouncer/pgbouncer.ini").read_text()
    told = environment(server)
    assert (told["PERGOLA_POOL_MODE"], told["PERGOLA_CONN_MAX_AGE"]) == ("session", "0")


def test_the_application_knows_the_port_that_clients_use(server_with):
    server = server_with(site_https_port=8443)
    assert "  default $host:8443;\n" in (server / "etc/nginx/conf.d/proxies.conf").read_text()
    assert environment(server)["CSRF_TRUSTED_ORIGINS"] == "https://app.example.org:8443"


def test_a_header_that_is_let_through_is_every_clients_without_trusted_proxies(server_with):
    nginx = server_with(nginx_passed_headers=["Cf-Access-Jwt-Assertion"]) / "etc/nginx"
    passed = "proxy_set_header Cf-Access-Jwt-Assertion $passed_cf_access_jwt_assertion;"
    assert passed in (nginx / "snippets/proxy.conf").read_text()
    variable = "$passed_cf_access_jwt_assertion {\n  default $http_cf_access_jwt_assertion;\n}"
    assert variable in (nginx / "conf.d/proxies.conf").read_text()


def test_urls_have_the_port_that_clients_use(server_with):
    """A balancer takes 443 and connects to 8443."""
    server = server_with(site_https_port=8443, site_public_port=443)
    nginx = server / "etc/nginx"
    assert "  default $host;\n" in (nginx / "conf.d/proxies.conf").read_text()
    assert "return 301 https://$host$request_uri;" in (nginx / "sites/default.conf").read_text()
    assert 'h3=":443"' in (nginx / "snippets/security-headers.conf").read_text()
    assert "listen 8443 ssl" in (nginx / "sites/app.conf").read_text()
    assert environment(server)["CSRF_TRUSTED_ORIGINS"] == "https://app.example.org"


def test_daphne_is_told_the_longest_message(server, settings):
    command = re.search(r"^ExecStart=(.*)$", (server / UNITS / "app-websocket@.service").read_text(), re.M)[1]
    longest = settings["app_websocket_max_message"]
    assert f" --websocket-max-message-size {longest} --websocket-max-frame-size {longest} " in command


PLAIN = {"app_asgi": "", "app_websocket_path": "", "app_celery": "", "app_settings_overlay": True}
KINDS = {
    "a project that knows nothing": PLAIN,
    "with files for everybody": PLAIN | {"app_static_url": "/a/s/", "app_media_url": "/m/"},
    "with Channels": PLAIN | {"app_asgi": "shop.asgi:application", "app_websocket_path": "/live/"},
    "with Celery": PLAIN | {"app_celery": "shop:app"},
    "without the runtime": {"app_runtime": False, "app_asgi": "shop.asgi:application"},
    "without static files": {"app_static_url": ""},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_application_has_files_that_can_be_read(server_with, kind):
    server = server_with(**KINDS[kind])
    assert parsed_by_nginx(server)
    if shutil.which("systemd-analyze"):
        assert systemds_complaints(server) == []


def environment(server):
    return dict(re.findall(r'^([A-Z_]+)="(.*)"$', (server / "etc/app/app.env").read_text(), re.M))


def test_the_overlay_stands_before_the_projects_settings(server_with):
    told = environment(server_with(**PLAIN, app_settings_module="shop.settings", app_static_url="/assets/"))
    assert told["DJANGO_SETTINGS_MODULE"] == "pergola_runtime.settings"
    assert (told["APP_SETTINGS_MODULE"], told["STATIC_URL"]) == ("shop.settings", "/assets/")


def test_what_the_overlay_wants_is_in_the_environment_file(server):
    """The same names, as an overlay that lacks one refuses to start."""
    from pergola_runtime.overlay import REQUIRED

    units = [path for path in (server / UNITS).glob("app-*.service") if "app-live" not in path.name]
    assert all("\nEnvironment=STATIC_ROOT=" in unit.read_text() for unit in units)  # the release's own
    assert set(REQUIRED) - {"STATIC_ROOT"} <= set(environment(server))


def test_a_project_without_asgi_is_served_by_the_runtime(server_with):
    server = server_with(**PLAIN)
    assert (
        "bin/gunicorn pergola_runtime.serving:application "
        in (server / UNITS / "app-web@.service").read_text()
    )
    assert environment(server)["PERGOLA_APPLICATION"] == ""


def test_without_the_runtime_nothing_of_it_is_run(server_with):
    server = server_with(**KINDS["without the runtime"])
    assert not [
        path
        for path in (server / UNITS).rglob("*")
        if path.is_file() and "pergola_runtime" in path.read_text()
    ]


def test_stock_daphne_finds_its_socket(server_with, tmp_path):
    """The unit's line in a shell, as systemd hands it over, with a Daphne that tells what it was told."""
    server = server_with(
        **KINDS["without the runtime"], app_home=str(tmp_path / "h"), app_runtime_directory=str(tmp_path)
    )
    daphne = tmp_path / "h/slots/blue-2/venv/bin/daphne"
    daphne.parent.mkdir(parents=True)
    daphne.write_text('#!/bin/sh\necho "$@"\n')
    daphne.chmod(0o755)
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue/websocket-2.sock").write_text("what a killed one left")
    line = re.search(r"^ExecStart=(.*)$", (server / UNITS / "app-websocket@.service").read_text(), re.M)[1]
    for written, meant in (("%%", "\0"), ("%i", "blue-2"), ("\0", "%"), ("$$", "$")):
        line = line.replace(written, meant)
    ran = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True)
    socket = tmp_path / "blue/websocket-2.sock"
    # without a limit of messages, which an older Daphne does not know
    assert ran.stdout.strip() == f"--proxy-headers --verbosity 0 --unix-socket {socket} shop.asgi:application"
    assert not socket.exists()


def test_behind_a_balancer_http_3_is_off_and_its_health_check_is_answered(server_with):
    server = server_with(nginx_trusted_proxies=["203.0.113.0/24"], nginx_proxy_protocol=True)
    assert parsed_by_nginx(server)
    nginx = {path.name: path.read_text() for path in (server / "etc/nginx").rglob("*.conf")}
    assert "quic" not in "".join(nginx.values())
    assert "h3=" not in "".join(nginx.values())
    assert "set_real_ip_from 203.0.113.0/24;" in nginx["proxies.conf"]
    assert "real_ip_header proxy_protocol;" in nginx["proxies.conf"]
    listens = [line for line in nginx["app.conf"].splitlines() if line.strip().startswith("listen")]
    assert listens
    assert all("ssl proxy_protocol;" in line for line in listens)
    assert "udp dport { 443 }" not in (server / "etc/nftables.conf").read_text()
