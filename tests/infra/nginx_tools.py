"""For the tests of nginx: clients on the host itself, nginx with other settings, and a mirror behind it."""

import contextlib
import json
import shlex
import subprocess
from urllib.parse import urlsplit

from infra.tools import inventory_of, main_process, play
from waiting import PATIENCE, wait_until

# One request after another, each over a connection of its own, which stays open until the last is answered.
# Prints a list of [status, headers, body], with null for a connection that nginx closed without an answer.
REQUESTS = """
import http.client, json, socket, ssl, sys
context, connections = ssl._create_unverified_context(), []

def answer(asked):
    plain = socket.create_connection(("127.0.0.1", asked["port"]), 60, (asked["source"], 0))
    plain.sendall(bytes.fromhex(asked["first"]))
    one = http.client.HTTPConnection("127.0.0.1")
    connections.append(one)
    one.sock = context.wrap_socket(plain) if asked["tls"] else plain
    one.putrequest("GET", asked["path"], skip_host=True, skip_accept_encoding=True)
    for name, value in [["Host", asked["name"]], *asked["headers"]]:
        one.putheader(name, value)
    one.endheaders()
    got = one.getresponse()
    return [got.status, {name.lower(): value for name, value in got.getheaders()}, got.read().decode()]

answers = []
for asked in json.loads(sys.argv[1]):
    try:
        answers.append(answer(asked))
    except (OSError, http.client.HTTPException):
        answers.append(None)
print(json.dumps(answers))
"""


def ask_nginx(host, settings, *requests):
    """Send requests from the host itself.

    A request is a dictionary of what differs from `usual`; `first` are bytes to send before TLS, in
    hexadecimal. Returns for each (status, headers, body), or None if nginx closed the connection.
    """
    usual = {
        "source": "127.0.0.1",
        "port": settings["site_https_port"],
        "tls": True,
        "first": "",
        "name": urlsplit(settings["site_url"]).netloc,
        "path": "/",
        "headers": [],
    }
    said = host.check_output("python3 -c %s %s", REQUESTS, json.dumps([usual | each for each in requests]))
    return [answer and tuple(answer) for answer in json.loads(said)]


@contextlib.contextmanager
def started(settings, code, *arguments):
    """Run Python on the host meanwhile, with pipes to its standard input and output.

    It must end by itself, at the latest some time after its input has ended.
    """
    command = shlex.join(["python3", "-c", code, *map(str, arguments)])
    with subprocess.Popen(
        [*settings["host_login"], "--", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def accepting_workers(host):
    """nginx's workers that take new connections; after a reload the earlier ones only finish requests."""
    listed = host.run("ps -o pid=,args= --ppid %s", str(main_process(host, "nginx.service"))).stdout
    return {
        int(line.split()[0])
        for line in listed.splitlines()
        if "worker process" in line and "shutting down" not in line
    }


def wait_for_new_workers(host, earlier):
    def replaced():
        return (now := accepting_workers(host)) and now.isdisjoint(earlier)

    wait_until(replaced, "nginx's earlier workers to take no more connections")


def reload_nginx(host):
    """Returns when all new connections meet the new configuration."""
    earlier = accepting_workers(host)
    host.check_output("nginx -s reload")
    wait_for_new_workers(host, earlier)


def converge_nginx(servers, host, settings):
    """With these settings instead of the environment's."""
    earlier = accepting_workers(host)
    arguments = ["--tags", "nginx", "-e", json.dumps(settings)]
    done = play(inventory_of(servers), "site", arguments=arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    if any(done.changed.values()):
        wait_for_new_workers(host, earlier)


@contextlib.contextmanager
def nginx_with(servers, host, **settings):
    """nginx as a converge with these settings leaves it; afterwards with the environment's own again."""
    try:
        converge_nginx(servers, host, settings)
        yield
    finally:
        converge_nginx(servers, host, {})


# It answers with the headers that it got. /large?N: with a header of N bytes; /held: when /release was asked,
# or after 45 s; /counts: with how often each path was asked.
MIRROR = """
import collections, http.client, json, os, socketserver, threading
from http.server import BaseHTTPRequestHandler

http.client._MAXHEADERS = 10_000
counts, lock, released = collections.Counter(), threading.Lock(), threading.Event()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "nginx"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path, _, query = self.path.partition("?")
        with lock:
            counts[path] += 1
        body = json.dumps(counts if path == "/counts" else self.headers.items()).encode()
        if path == "/held":
            released.wait(45)
        if path == "/release":
            released.set()
        self.send_response(200)
        self.send_header("Connection", "close")
        if path == "/large":
            self.send_header("Set-Cookie", "large=" + "a" * int(query))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 1000

os.umask(0)
Server(SOCKET, Handler).serve_forever()
"""


@contextlib.contextmanager
def mirrored(host, settings):
    """With the mirror in the application's place."""
    live, place = f"{settings['app_runtime_directory']}/live", f"{settings['app_runtime_directory']}/mirror"
    slot = host.check_output("readlink %s", live)
    host.check_output(
        f"mkdir -p {place} && rm -f {place}/web.sock"
        " && systemd-run --quiet --collect --unit=test-mirror python3 -c %s",
        f"SOCKET = '{place}/web.sock'" + MIRROR,
    )
    try:
        wait_until(lambda: host.run("test -S %s/web.sock", place).rc == 0, "the mirror to listen")
        host.check_output("ln -sfn mirror %s", live)
        yield
    finally:
        host.check_output("ln -sfn %s %s", slot, live)
        host.check_output(f"systemctl stop test-mirror.service; rm -r {place}")
