"""The stack fits the smallest machine that it is offered for."""

import asyncio
import json
import re
import ssl
from pathlib import Path

import httpx

# What is in use may fill so much of the host; the rest is for the page cache and for peaks.
SHARE = 0.75

# whose journal is shown where a visit is not answered with 200
EVIDENCE = ["app-web@*"]


def proportional_memory(host):
    """{command: MiB}, what is shared counted once. Added up, as a container sees its host's memory."""
    script = (
        "for process in /proc/[0-9]*; do"
        ' sed -n "s|^Pss: *|$(cat $process/comm) |p" $process/smaps_rollup 2>/dev/null; done; :'
    )
    found = {}
    for line in host.check_output(script).splitlines():
        name, kilobytes = re.fullmatch(r"(.*) (\d+) kB", line).groups()
        found[name] = found.get(name, 0) + int(kilobytes) / 1024
    return found


def visit(settings):
    """Every worker has served, so that what it loads late is loaded."""
    authority = Path(settings["secrets_authority_certificate"])
    context = ssl.create_default_context(cafile=authority if authority.exists() else None)

    async def visit_all():
        async with httpx.AsyncClient(base_url=settings["site_url"], verify=context, timeout=30) as client:
            paths = ["/", settings["app_health_path"]] * 100
            answers = await asyncio.gather(*(client.get(path) for path in paths))
        assert [answer.text for answer in answers if answer.status_code != 200] == []

    asyncio.run(visit_all())


def test_what_runs_fits_the_host(host, settings):
    visit(settings)
    used = proportional_memory(host)
    facts = int(re.search(r"MemTotal: +(\d+)", host.check_output("cat /proc/meminfo"))[1]) // 1024
    # a number where the environment sets it: a machine's memory is less than what it sees
    size = int(settings.get("host_memory_mb", facts))
    print({name: round(mebibytes) for name, mebibytes in sorted(used.items(), key=lambda item: -item[1])})
    print(f"in use: {sum(used.values()):.0f} of {size} MiB")
    assert sum(used.values()) < SHARE * size


def kills_counted(settings):
    """What the kernel counted for a machine of this host, whose own systemd may not be told."""
    record = json.loads((Path(settings["environment_state_directory"]) / "machines.json").read_text())
    group = f"pergola-{record['id']}-{settings['inventory_hostname']}"
    root = Path("/sys/fs/cgroup")
    counters = [*root.glob(f"**/{group}/memory.events"), *root.glob(f"*/{group}/memory.oom_control")]
    return [int(re.search(r"^oom_kill (\d+)", file.read_text(), re.MULTILINE)[1]) for file in counters]


def test_nothing_was_killed_for_memory(host, settings):
    said = host.run(
        "journalctl --no-pager --output=cat --grep='OOM killer|oom-kill|Out of memory'"
        " _PID=1 + _TRANSPORT=kernel"
    ).stdout
    assert said in ("", "-- No entries --\n"), said
    if "machines_provider" in settings:
        assert not any(kills_counted(settings))
