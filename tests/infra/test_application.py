import json
import re
import shlex

import pytest
from infra.tools import (
    beside_the_slots,
    children,
    journal,
    killed,
    live_slot,
    main_process,
    run_probe,
    stopped,
)
from waiting import wait_until

pytestmark = pytest.mark.hosts("web")
EVIDENCE = ["app-web@*", "app-websocket@*"]


@pytest.fixture
def slot(host, settings):
    return live_slot(host, settings)


@pytest.fixture
def web(slot):
    return f"app-web@{slot}.service"


@pytest.fixture
def websockets(slot, settings):
    number = settings["app_websocket_processes"] if settings["app_websocket_path"] else 0
    return [f"app-websocket@{slot}-{each}.service" for each in range(1, number + 1)]


def command_line(host, pid):
    return host.check_output("tr '\\0' '\\n' < /proc/%s/cmdline", str(pid)).splitlines()


def owner(host, pid):
    return host.check_output("stat -c %%U /proc/%s", str(pid))


@pytest.fixture
def workers_wanted(host, settings, load_environment):
    """The setting, which may be worked out from the host's cores; daphne is its own only one."""
    if settings["app_http_server"] == "daphne":
        return 0
    name = settings["inventory_hostname"]
    facts = (("processor_nproc", int(host.check_output("nproc"))),)
    return int(load_environment(settings["environment_name"], facts).settings[name]["app_web_workers"])


def workers(host, master):
    """A server's children, without the process that Python starts to clear up after them."""
    # one command, as a process that ends between two has no command line any more
    lines = host.run("pgrep -a -P %s", str(master)).stdout.splitlines()
    return {int(line.split()[0]) for line in lines if "multiprocessing.resource_tracker" not in line}


@pytest.fixture
def workers_come_back(host, web, workers_wanted):
    def wait(but=()):
        wait_until(lambda: main_process(host, web), f"{web} to come back")
        wait_until(
            lambda: len(workers(host, main_process(host, web)) - set(but)) == workers_wanted,
            f"{workers_wanted} workers",
        )

    return wait


def test_the_server_runs_as_many_workers_as_set(host, settings, web, workers_wanted):
    """People find what they know: the server by its name, a main process and its children."""
    master = main_process(host, web)
    assert settings["app_http_server"].split("-")[0] in " ".join(command_line(host, master))
    running = workers(host, master)
    assert len(running) == workers_wanted
    assert {owner(host, pid) for pid in {master, *running}} == {settings["app_user"]}


def test_gunicorns_workers_are_of_the_class_that_was_set(host, settings, web):
    """What gunicorn loaded, which is more than what its command line asked for."""
    if not settings["app_http_server"].startswith("gunicorn"):
        return  # the others have one kind
    invocation = host.check_output("systemctl show -P InvocationID %s", web)
    said = journal(host, f"_SYSTEMD_INVOCATION_ID={invocation}")
    assert re.findall(r"Using worker: (\S+)", said)[0].startswith(settings["app_web_worker"])


@pytest.mark.disruptive
def test_a_worker_that_is_told_to_stop_drains_and_another_takes_its_place(
    host, settings, web, workers_come_back
):
    """Only the draining class writes this line: with the stock one, a reload loses requests."""
    if settings["app_http_server"] != "gunicorn":
        return  # nobody tells a single worker of another server to stop
    master = main_process(host, web)
    worker = min(children(host, master))
    host.check_output("kill -TERM %s", str(worker))
    workers_come_back(but={worker})
    assert "Draining: no new connections" in journal(host, f"_PID={worker}")
    assert main_process(host, web) == master


@pytest.mark.disruptive
def test_a_killed_worker_comes_back(host, web, workers_come_back):
    for worker in sorted(workers(host, main_process(host, web)))[:1]:  # daphne has none
        host.check_output("kill -KILL %s", str(worker))
        workers_come_back(but={worker})


@pytest.mark.disruptive
def test_a_killed_master_comes_back(host, web, workers_come_back):
    killed(host, web)
    workers_come_back()


@pytest.mark.disruptive
def test_a_killed_daphne_comes_back_and_takes_its_socket_over(host, settings, slot, websockets):
    """The socket's file outlives the process that made it, and must not stop the next one."""
    for number, unit in enumerate(websockets, 1):
        path = f"{settings['app_runtime_directory']}/{slot}/websocket-{number}.sock"
        killed(host, unit)
        answers = f"python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{path}\")'"
        wait_until(lambda: host.run(answers).rc == 0, f"{unit} to listen")  # noqa: B023


@pytest.mark.disruptive
def test_the_link_to_the_live_slot_is_tried_again_until_it_is_made(host, settings):
    """At the machine's start, behind which nobody would make it."""

    def state():
        return host.check_output("systemctl show -P SubState app-live.service")

    in_the_way = f"{settings['app_runtime_directory']}/live.new"
    host.check_output("mkdir %s", in_the_way)
    try:
        host.run("systemctl restart app-live.service")
        wait_until(lambda: state() == "auto-restart", "it to be tried again")
    finally:
        host.check_output("rm -r %s", in_the_way)
    wait_until(lambda: state() == "exited", "the link to be made")


def test_each_daphne_process_runs_as_the_application(host, settings, websockets):
    for unit in websockets:
        process = main_process(host, unit)
        assert "pergola_runtime.daphne" in command_line(host, process)
        assert owner(host, process) == settings["app_user"]
    running = host.check_output("systemctl list-units --legend=no --plain --state=running 'app-websocket@*'")
    assert sorted(line.split()[0] for line in running.splitlines()) == sorted(websockets)


def test_the_units_say_what_they_run(host, settings, web, websockets):
    """`systemctl status` is read at 3 a.m. by somebody who did not build this."""
    description = host.check_output("systemctl show -P Description %s", web)
    assert f"{settings['app_http_server']} serving HTTP" in description
    for unit in websockets:
        assert "Daphne" in host.check_output("systemctl show -P Description %s", unit)


def test_the_link_and_the_record_agree_on_the_live_slot(host, settings, slot):
    """nginx follows the link, which is gone after a restart of the machine; the record on disk is not."""
    assert host.check_output("readlink %s/live", settings["app_runtime_directory"]) == slot
    assert slot in settings["app_slots"]
    release = json.loads(host.check_output("cat %s/live/release.json", settings["app_home"]))
    assert host.check_output("readlink -f %s/live", settings["app_home"]).endswith(f"/{release['id']}")


def test_everything_runs_the_live_release(host, settings, web, websockets):
    """Also what no slot holds: a process of an old release would work on unseen."""
    live = host.check_output("readlink -f %s/live", settings["app_home"])
    units = [web, *websockets, *(f"app-{name}.service" for name in beside_the_slots(settings))]
    runs = {unit: host.check_output("readlink /proc/%s/cwd", str(main_process(host, unit))) for unit in units}
    assert {unit: cwd for unit, cwd in runs.items() if not cwd.startswith(f"{live}/")} == {}


def test_every_unit_of_the_application_is_confined(host, settings, web, websockets):
    """systemd's own measure, from 0 (no exposure) to 10; stock services have 9."""
    listed = host.check_output("systemctl list-units --all --legend=no --plain --type=service 'app-*'")
    files = host.check_output("systemctl list-unit-files --legend=no --plain --type=service 'app-*'")
    units = {line.split()[0] for line in (listed + "\n" + files).splitlines() if line}
    units = {unit for unit in units if "@." not in unit and not unit.startswith("app-probe-")}
    for idle in settings["app_slots"]:
        units |= {f"app-web@{idle}.service", f"app-websocket@{idle}-1.service"}
    celery = {f"app-{part}.service" for part in settings["app_celery_parts"]}
    assert units >= {web, *websockets, *celery, "app-live.service"}
    exposed = {}
    for unit in sorted(units):
        said = host.check_output("systemd-analyze security --no-pager %s", unit)
        exposed[unit] = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said)[1])
    print(exposed)
    assert {unit: score for unit, score in exposed.items() if score > 1.0} == {}


# The score says what a unit declares. This tries it: run as an app-* unit, it prints what became of each try.
ESCAPES = """
import ctypes, json, mmap, os, socket, sys

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__ + ": " + str(error)
    return "done"

def write(directory):
    path = os.path.join(directory, "app-probe")
    with open(path, "w"):
        pass
    os.unlink(path)

def send(address):
    # a datagram, as a dropped one is reported to the sender; a connection would try again until a limit
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    socket.socket(family, socket.SOCK_DGRAM).sendto(b"", (address, 9))

def writable_code():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()

def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "user": os.popen("id -un").read().strip(),
    "no new privileges": status["NoNewPrivs"].strip(),
    "capabilities": status["CapBnd"].strip(),
    "processes": sorted(name for name in os.listdir("/proc") if name.isdigit() and
                        os.stat("/proc/" + name).st_uid not in (os.getuid(),)),
    "write": {place: outcome(lambda: write(place)) for place in PLACES},
    "outside": outcome(lambda: send(OUTSIDE)),
    "redis": outcome(lambda: socket.create_connection(("127.0.0.1", REDIS), 3)),
    "writable code": outcome(writable_code),
    "new namespace": outcome(lambda: call("unshare", 0x10000000)),
    "netlink socket": outcome(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "environment file": outcome(lambda: open(ENVIRONMENT)),
}))
"""


@pytest.fixture(scope="module")
def escapes(host, settings):
    home = settings["app_home"]
    release = host.check_output(f"readlink -f {home}/live")
    read_only = [
        f"{home}/releases",
        f"{release}/source",
        home,
        f"{home}/static",
        "/etc",
        "/etc/app",
        "/usr/local/bin",
    ]
    values = {
        "PLACES": [*read_only, f"{home}/media", "/var/lib/app", "/tmp"],  # noqa: S108
        # the control machine, as the host sees it: an address that no application has business with
        "OUTSIDE": outside(host),
        "REDIS": settings["redis_port"],
        "ENVIRONMENT": settings["app_env_file"],
    }
    found = run_probe(
        host, settings, "".join(f"{name} = {value!r}\n" for name, value in values.items()) + ESCAPES
    )
    return found | {"read_only": read_only, "address": values["OUTSIDE"]}


def outside(host):
    """Who is on the other end of an SSH connection of this host."""
    established = host.check_output("ss -Htn state established '( sport = :ssh )'")
    return established.split()[3].rsplit(":", 1)[0].strip("[]").removeprefix("::ffff:")


def test_the_sandbox_runs_as_the_application_without_rights(escapes, settings):
    assert escapes["user"] == settings["app_user"]
    assert escapes["no new privileges"] == "1"
    assert int(escapes["capabilities"], 16) == 0


def test_the_application_cannot_change_its_own_code_or_the_system(escapes):
    """A hole in the application must not become one in its next start."""
    assert {place for place in escapes["read_only"] if escapes["write"][place] == "done"} == set()


def test_the_application_can_write_where_it_keeps_things(escapes):
    writable = {place for place, outcome in escapes["write"].items() if outcome == "done"}
    assert writable == set(escapes["write"]) - set(escapes["read_only"])


def test_the_application_cannot_connect_to_the_outside(host, escapes, settings):
    """What gets in cannot call home. From the host itself the same address is not forbidden."""
    if "any" in settings["app_reach"]:
        return  # the operator opened it
    assert escapes["outside"].startswith("PermissionError"), escapes["outside"]
    send = (
        "import socket, sys; socket.socket(2 if '.' in sys.argv[1] else 10, 2).sendto(b'', (sys.argv[1], 9))"
    )
    assert host.run("python3 -c %s %s", send, escapes["address"]).rc == 0


def test_the_application_reaches_redis(escapes):
    assert escapes["redis"] == "done"


@pytest.mark.parametrize("attempt", ["writable code", "new namespace", "netlink socket", "environment file"])
def test_the_application_cannot(escapes, attempt):
    """Run code that it wrote, build a namespace with its own rights, talk to the kernel, read its secrets."""
    assert re.match(r"PermissionError|OSError: \[Errno 97\]", escapes[attempt]), escapes[attempt]


def test_the_application_sees_no_process_but_its_own(escapes):
    """The command lines and environments of others are none of its business."""
    assert escapes["processes"] == []


@pytest.mark.disruptive
def test_the_target_stops_everything_and_starts_it_again(host, settings, web, websockets):
    """The two commands that an operator types, and that a restart of the machine is made of."""
    units = [web, *websockets]
    with stopped(host, "app.target"):
        for unit in units:
            wait_until(
                lambda: host.run("systemctl is-active %s", unit).stdout.strip() == "inactive",  # noqa: B023
                f"{unit} to stop",
            )
    for unit in units:
        wait_until(lambda: host.run("systemctl is-active %s", unit).rc == 0, f"{unit} to start")  # noqa: B023


@pytest.mark.disruptive
def test_a_management_command_runs_in_the_sandbox(host, settings):
    code = "import json, os; print(json.dumps(open('/proc/self/status').read().count('NoNewPrivs:\\t1')))"
    assert (
        host.check_output(f"app-manage shell --no-imports -v 0 -c {shlex.quote(code)}").splitlines()[-1]
        == "1"
    )
