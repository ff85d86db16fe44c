"""Async Django in half a minute, in the terminal: `demo.py https://app.example.org [--ca FILE]`.

Three calls one after another and together, and the fast view behind each kind of sleeper. Whatever it prints
was measured just now by the site at that address.
"""

import argparse
import ssl
import sys
import time
from pathlib import Path

import httpx

COUNT, DELAY = 3, 1
KINDS = {
    "async": "async views, Uvicorn",
    "def": "def views, Uvicorn",
    "pool": "asyncio.to_thread, Uvicorn",
    "blocking": "a blocking call in an async view",
    "wsgi": "a def view, one sync worker",
    "wsgi-async": "an async view, one sync worker",
}
PATIENCE = 40  # seconds for another visitor's turn


class NotHereError(Exception):
    """A part of the site that a small set-up leaves out."""


def get(client, path, **params):
    deadline = time.monotonic() + PATIENCE
    while (answer := client.get(path, params=params)).status_code == 429 and time.monotonic() < deadline:
        time.sleep(min(float(answer.headers.get("Retry-After", 1)), 5))
    if answer.status_code == 503 and answer.headers["Content-Type"] == "application/json":
        raise NotHereError(answer.json().get("error", "not ready"))
    answer.raise_for_status()
    return answer.json()


def calls(client):
    yield f"{COUNT} calls to outside services that take {DELAY} s each"
    for mode, how in (("sync", "one after another"), ("async", "together")):
        answer = get(client, "/dashboard/data", mode=mode, count=COUNT, delay=DELAY)
        if answer["partial"]:
            raise NotHereError("the stand-in of the outside services does not answer")
        yield f"  {how:32} {answer['elapsed']:6.2f} s"


def row(*columns):
    return "  {:32} {:>8} {:>8}  {}".format(*columns)


def neighbours(client, kinds=KINDS):
    yield "Who sleeps in a process, and when a fast view sent meanwhile is answered there"
    yield row("who sleeps", "sleepers", "threads", "fast view")
    for kind in kinds:
        answer = get(client, "/lab/neighbours/data", kind=kind)
        for view in dict.fromkeys(fast["view"] for fast in answer["fast"]):
            fast = [one for one in answer["fast"] if one["view"] == view]
            waits = sorted(round((one["answered"] - one["sent"]) * 1000) for one in fast)
            yield row(
                KINDS[kind],
                answer["sleepers"]["asked"],
                max(one["threads"] for one in fast),
                f"{view}: {waits[0]} to {waits[-1]} ms, {'waits' if behind(fast) else 'among them'}",
            )


def behind(fast):
    """Were they answered when a sleeper had ended, and not before?"""
    return sum(one["waited_for"] > 0 for one in fast) > len(fast) / 2


def show(client):
    client.get("/livez").raise_for_status()
    for lines in (calls(client), neighbours(client)):
        try:
            for line in lines:
                print(line, flush=True)
        except NotHereError as error:
            print(f"  not shown: {error}. make up brings it; app/README.md says how to start it by hand.")
        print()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", metavar="URL", help="where the site is: https://app.example.org")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="its certificate authority, if the file exists"
    )
    arguments = parser.parse_args()
    tls = ssl.create_default_context(cafile=arguments.ca if arguments.ca and arguments.ca.exists() else None)
    try:
        with httpx.Client(base_url=arguments.url, verify=tls, timeout=30) as client:
            show(client)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        sys.exit(f"{arguments.url} does not answer as the sample does ({error}): is it up? make up")


if __name__ == "__main__":
    main()
