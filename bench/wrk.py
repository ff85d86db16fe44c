"""What wrk says, as figures."""

import re
from dataclasses import dataclass

UNITS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class NoFiguresError(Exception):
    pass


@dataclass(frozen=True)
class Figures:
    rps: float  # of right answers: who refuses quickly wins nothing
    p50_ms: float
    p99_ms: float
    errors: int
    requests: int


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()
    return float(number) * UNITS[unit]


def parse(text):
    percentiles = dict(re.findall(r"^\s+(50|99)%\s+(\S+) *$", text, re.MULTILINE))
    done = re.search(r"^\s+(\d+) requests in (\S+),", text, re.MULTILINE)
    if not done or (int(done[1]) and len(percentiles) < 2):
        raise NoFiguresError(text.strip()[-600:] or "wrk said nothing")
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    refused = int(wrong[1]) if wrong else 0
    requests, seconds = int(done[1]), milliseconds(done[2]) / 1000
    return Figures(
        rps=(requests - refused) / seconds,
        # without a single answer within the cell there is no latency either
        p50_ms=milliseconds(percentiles["50"]) if requests else float("nan"),
        p99_ms=milliseconds(percentiles["99"]) if requests else float("nan"),
        errors=refused + sum(map(int, sockets.groups() if sockets else ())),
        requests=requests,
    )
