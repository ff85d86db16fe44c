"""The rendered files, put before the programs that read them."""

import json
import re
import shutil
import subprocess

import pytest

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


def test_nginx_takes_its_configuration(server):
    """nginx's grammar by its vendor's parser: contexts, arguments, names. A converge runs `nginx -t`."""
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
    assert len(parsed["config"]) > 8


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


@needs_systemd
def test_systemd_takes_every_unit(server):
    """A misspelt directive is a warning to systemd, which goes on without it: here it is an error."""
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
    complaints = [
        line
        for line in said.stderr.splitlines()
        if re.search(r"Unknown|Failed to parse|Invalid|Missing|not absolute|ignoring", line)
    ]
    assert complaints == [], said.stderr


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


def test_the_pool_fits_into_what_postgresql_accepts(server):
    pool = int(
        re.search(r"default_pool_size = (\d+)", (server / "etc/pgbouncer/pgbouncer.ini").read_text())[1]
    )
    accepted = (server / "etc/postgresql/17/main/conf.d/pergola.conf").read_text()
    assert int(re.search(r"max_connections = (\d+)", accepted)[1]) >= pool + 20
