"""From cells to medians, ratios, tables and a chart. A cell is what measure.py tells of one."""

import json
import math
import statistics
from dataclasses import dataclass
from html import escape

from bench.contestants import BASE

KEYS = ("contestant", "endpoint", "clients", "path")
FIGURES = {"rps": 1, "p50_ms": 2, "p99_ms": 2, "errors": 0, "rss_mb": 0, "pg_connections": 0}
SHORT = ("hello", "row", "rows", "session")
ENDPOINTS = {
    "hello": "five bytes",
    "row": "one row by primary key",
    "rows": "twenty rows with author and tags",
    "fanout": "three upstreams of 100 ms, together",
    "session": "a page for whoever is logged in",
    "cache": "one value of Django's cache, in Redis",
    "blocking": "one request in ten waits 1 s in a def view",
}


def median(values, digits):
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    middle = statistics.median(known)
    return round(middle, digits) if digits else math.ceil(middle)


def gathered(cells):
    """{key: its cells}, in the order in which they came."""
    found = {}
    for cell in cells:
        found.setdefault(tuple(cell[key] for key in KEYS), []).append(cell)
    return found


def rows(cells):
    """One a median. Of errors and server connections the most that were seen, as none may be too many."""
    found = []
    for key, group in gathered(cells).items():
        row = dict(zip(KEYS, key, strict=True))
        for name, digits in FIGURES.items():
            values = [cell[name] for cell in group]
            row[name] = max(values) if name in ("errors", "pg_connections") else median(values, digits)
        found.append(row)
    return found


def costs(cells):
    """Processor time of a contestant's own processes for a request, in milliseconds."""
    return [
        dict(zip(KEYS, key, strict=True)) | {"cpu_ms": median([cell["cpu_ms"] for cell in group], 3)}
        for key, group in gathered(cells).items()
    ]


def ratios(cells, ours, theirs, figure="rps", **where):
    """Ours over theirs, of each round in which both ran: what disturbed the machine then disturbed both."""
    where = {"path": "direct"} | where
    turns = {}
    for cell in cells:
        if cell["contestant"] in (ours, theirs) and all(cell[key] == value for key, value in where.items()):
            turns.setdefault((cell["group"], cell["round"]), {})[cell["contestant"]] = cell[figure]
    return [turn[ours] / turn[theirs] for turn in turns.values() if len(turn) == 2 and turn[theirs]]


@dataclass(frozen=True)
class Target:
    ours: str
    theirs: str
    endpoint: str
    clients: int
    wanted: float

    @property
    def text(self):
        return f"{self.endpoint}, {self.clients} clients: {self.ours} to {self.theirs}"


TARGETS = (
    Target("pergola", "stock", "hello", 64, 4),
    Target("pergola", "stock", "row", 64, 3),
    *(Target("pergola", "wsgi", endpoint, 64, 1) for endpoint in SHORT),
    Target("pergola", "wsgi", "fanout", 200, 20),
    Target("pergola", "fastapi", "fanout", 64, 0.95),
    Target("pergola", "fastapi", "fanout", 200, 0.95),
    Target("pergola", "fastapi", "row", 64, 0.6),
    Target("pergola-prepared", "fastapi", "row", 64, 0.6),
    Target("pergola-asyncdb", "fastapi", "row", 64, 0.85),
    Target("pergola", "stock", "blocking", 64, 1),
    Target("pergola", "wsgi-16", "blocking", 64, 1),
    Target("pergola", "stock", "cache", 64, 1),
)
MANY = ("pergola", "row", 2000, "direct")


def targets(cells, pool_size):
    """Each with what was measured; what this run had no cells for is left out."""
    found = []
    for target in TARGETS:
        where = {"endpoint": target.endpoint, "clients": target.clients}
        measured = ratios(cells, target.ours, target.theirs, **where)
        if measured:
            ratio = statistics.median(measured)
            # theirs over ours: less time is better
            effort = ratios(cells, target.theirs, target.ours, "cpu_ms", **where)
            found.append(
                {
                    "target": target.text,
                    "wanted": f"{target.wanted:g}",
                    "measured": round(ratio, 2),
                    "lowest": round(min(measured), 2),
                    "highest": round(max(measured), 2),
                    "by_cpu": round(statistics.median(effort), 2) if effort else None,
                    "reached": ratio >= target.wanted,
                }
            )
    many = gathered(cells).get(MANY)
    if many:
        for name, most in (("errors", 0), ("pg_connections", pool_size)):
            seen = max(cell[name] for cell in many)
            found.append(
                {
                    "target": f"row, 2,000 clients: {name} of pergola",
                    "wanted": f"at most {most}",
                    "measured": seen,
                    "reached": seen <= most,
                }
            )
    return found


def workers(cells):
    """What a second worker brings to whoever ran beside itself with one, with 64 clients."""
    found = []
    for one, endpoint, clients, path in gathered(cells):
        both = one.removesuffix("-1")
        if one != both and (clients, path) == (64, "direct"):
            measured = ratios(cells, both, one, endpoint=endpoint, clients=clients)
            if measured:
                ratio = round(statistics.median(measured), 2)
                found.append({"contestant": both, "endpoint": endpoint, "clients": clients, "ratio": ratio})
    return found


def compared(cells):
    """What a request costs by this checkout's runtime and by that of BASE: the median of the rounds."""
    found = []
    for name, endpoint, clients, path in gathered(cells):
        where = {"endpoint": endpoint, "clients": clients, "path": path}
        if name == BASE and (measured := ratios(cells, "pergola", BASE, "cpu_ms", **where)):
            middle = statistics.median(measured)
            spread = {"lowest": round(min(measured), 3), "highest": round(max(measured), 3)}
            # an error costs less than an answer
            both = [cell for cell in cells if all(cell[key] == value for key, value in where.items())]
            errors = sum(cell["errors"] for cell in both if cell["contestant"] in ("pergola", BASE))
            figures = {"cpu_ratio": round(middle, 3), "rounds": len(measured), "errors": errors}
            found.append(where | figures | spread)
    return found


# --- as text


def number(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def table(head, lines):
    rule = "|".join("---" if index == 0 else "---:" for index in range(len(head)))
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])


def markdown(report, chart):
    effort = {tuple(cost[key] for key in KEYS): cost["cpu_ms"] for cost in report["costs"]}
    parts = [f"# Benchmark of {report['date']}", told(report), "## Targets"]
    lines = []
    for target in report["targets"]:
        spread = f"{target['lowest']:g} to {target['highest']:g}" if "lowest" in target else ""
        lines.append(
            [
                target["target"],
                target["wanted"],
                f"{target['measured']:g}",
                spread,
                f"{target['by_cpu']:g}" if target.get("by_cpu") else "",
                "reached" if target["reached"] else "**missed**",
            ]
        )
    parts.append(table(["", "wanted", "measured", "rounds", "by processor time", ""], lines))
    parts.append(
        "A ratio is the median of those of each round, in which both ran. By processor time: the same of "
        "what a request costs the contestants' own processes, which other load on the machine disturbs least."
    )
    if report.get("compared"):
        parts.append(against(report))
    parts.append(f"![Requests each second]({chart})")
    for path in dict.fromkeys(row["path"] for row in report["rows"]):
        for endpoint in dict.fromkeys(row["endpoint"] for row in report["rows"]):
            chosen = [row for row in report["rows"] if row["path"] == path and row["endpoint"] == endpoint]
            if not chosen:
                continue
            through = ", through nginx and TLS" if path == "nginx" else ""
            parts.append(f"## {endpoint}: {ENDPOINTS[endpoint]}{through}")
            head = [
                "contestant",
                "clients",
                "requests/s",
                "p50 ms",
                "p99 ms",
                "errors",
                "MB",
                "server connections",
            ]
            chosen.sort(key=lambda row: (row["clients"], -row["rps"]))
            lines = [
                [
                    row["contestant"],
                    f"{row['clients']:,}",
                    number(row["rps"]),
                    number(row["p50_ms"], 1),
                    number(row["p99_ms"], 1),
                    number(row["errors"]),
                    number(row["rss_mb"]),
                    number(row["pg_connections"]) if endpoint in ("row", "rows", "session") else "",
                    number(effort.get(tuple(row[key] for key in KEYS)), 2),
                ]
                for row in chosen
            ]
            parts.append(table([*head, "CPU ms"], lines))
    parts += parts_of_a_row(report["alone"], effort)
    parts += scaling(report["workers"], effort)
    if report.get("websockets"):
        parts.append(websockets(report["websockets"]))
    return "\n\n".join(parts) + "\n"


def told(report):
    machine, versions = report["machine"], report["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['system']} on {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gb']} GB, kernel {machine['kernel']}; a systemd-nspawn machine. wrk, the "
        "contestants, PgBouncer and PostgreSQL share these cores, so that ratios within the run count, and "
        f"not the figures. Commit {report['commit']}; load average {report['load']} when it began. How each "
        f"contestant is set up: ../README.md.\n\n{listed}."
    )


def parts_of_a_row(alone, effort):
    """Where the processor time of a row through the ORM goes, with 64 clients."""
    row, hello = (effort.get(("pergola", endpoint, 64, "direct")) for endpoint in ("row", "hello"))
    if not row or not hello:
        return []
    parts = {
        "server, middleware, view: `hello`": hello,
        "psycopg asks, in a thread that is alone": alone["psycopg_ms"],
        "the ORM makes the query and the model: `get()` in that thread, without psycopg": (
            alone["orm_ms"] - alone["psycopg_ms"]
        ),
        "to the thread and back: what is left": row - hello - alone["orm_ms"],
    }
    lines = [[name, number(cost, 2), number(100 * cost / row)] for name, cost in parts.items()]
    told = f"Of {row:.2f} ms of processor time that a request of pergola costs, with 64 clients."
    return ["## Where the time of a row goes", told, table(["part", "ms", "of 100"], lines)]


def against(report):
    lines = [
        [
            line["endpoint"],
            f"{line['clients']:,}",
            f"{line['cpu_ratio']:.3f}",
            f"{line['lowest']:.3f} to {line['highest']:.3f}",
            str(line["rounds"]),
            str(line["errors"]),
        ]
        for line in report["compared"]
    ]
    head = [
        "endpoint",
        "clients",
        "processor time of a request, to the base",
        "lowest to highest",
        "rounds",
        "errors",
    ]
    return f"## Against the runtime of {report['base']}\n\n" + table(head, lines)


def scaling(workers, effort):
    """What a second worker brings, and what a request costs as clients grow."""
    found = []
    lines = [[line["contestant"], line["endpoint"], f"{line['ratio']:g}"] for line in workers]
    if lines:
        told = "Requests each second of two workers over those of one, of each round, with 64 clients."
        found += ["## Workers", told, table(["contestant", "endpoint", "ratio"], lines)]
    costs = {}
    for (name, endpoint, clients, path), cost in effort.items():
        if path == "direct":
            costs.setdefault((endpoint, name), {})[clients] = cost
    steps = sorted({clients for by_clients in costs.values() for clients in by_clients})
    lines = [
        [endpoint, name, *(number(by_clients.get(clients), 2) for clients in steps)]
        for (endpoint, name), by_clients in sorted(costs.items())
        if len(by_clients) > 2
    ]
    if lines:
        head = ["endpoint", "contestant", *(f"{clients:,}" for clients in steps)]
        told = "Milliseconds of processor time for a request, of the contestant's own processes, by clients."
        found += ["## Cost as clients grow", told, table(head, lines)]
    return found


def websockets(found):
    end = f"the first refusal was {found['refusal']}" if found["refusal"] else "none was refused"
    return "\n\n".join(
        [
            "## WebSockets",
            f"Two Daphne processes held {found['connections']:,} connections ({end}), opened in "
            f"{found['opened_seconds']:g} s, at {found['kb_per_connection']:g} kB each. A message to all: "
            f"half had it after {found['broadcast_p50_ms']:g} ms, 99 of 100 after "
            f"{found['broadcast_p99_ms']:g} ms, the last after {found['broadcast_last_ms']:g} ms (medians of "
            f"five); {found['missed']} were missed.",
        ]
    )


# --- as a picture

WIDTH, LABEL, VALUE, BAR, GAP = 720, 130, 70, 18, 6
OURS, OTHERS = "#0f7b6c", "#8a94a3"


def chart(report):
    """Bars a contestant, a panel an endpoint, at 64 clients (the fan-out at 200)."""
    parts, y = [], 34
    for endpoint in ENDPOINTS:
        clients = 200 if endpoint == "fanout" else 64
        chosen = [
            row
            for row in report["rows"]
            if (row["endpoint"], row["clients"], row["path"]) == (endpoint, clients, "direct") and row["rps"]
        ]
        if not chosen:
            continue
        chosen.sort(key=lambda row: -row["rps"])
        parts.append(f'<text x="16" y="{y + 12}" class="t">{endpoint}: {ENDPOINTS[endpoint]}</text>')
        parts.append(f'<text x="{WIDTH - 16}" y="{y + 12}" class="e">{clients} clients</text>')
        y += 24
        for row in chosen:
            length = max(1, (WIDTH - LABEL - VALUE - 32) * row["rps"] / chosen[0]["rps"])
            colour = OURS if row["contestant"].startswith("pergola") else OTHERS
            middle = y + BAR - 5
            parts += [
                f'<text x="{LABEL + 8}" y="{middle}" class="e">{escape(row["contestant"])}</text>',
                f'<rect x="{LABEL + 16}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
                f'<text x="{LABEL + 22 + length:.1f}" y="{middle}">{row["rps"]:,.0f}</text>',
            ]
            y += BAR + GAP
        y += 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" '
        f'role="img" aria-label="Requests each second by contestant">\n'
        "<style>text{font:12px system-ui,sans-serif;fill:#222}\n"
        ".t{font-weight:600}.e{text-anchor:end}</style>\n"
        f'<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="16" y="20">Requests each second, medians of one run of {report["date"]}</text>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def compose(cells, told, pool_size):
    """The whole report; `told` is what the runner knows beside the cells."""
    return told | {
        "rows": rows(cells),
        "targets": targets(cells, pool_size),
        "workers": workers(cells),
        "costs": costs(cells),
        "compared": compared(cells),
    }


def write(report, path):
    """The results, the table and the chart, side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chart_path = path.with_suffix(".svg")
    chart_path.write_text(chart(report))
    path.with_suffix(".md").write_text(markdown(report, chart_path.name))
    # a line a row, so that two runs can be compared line by line
    text = json.dumps(report, indent=2)
    for name in ("rows", "targets", "workers", "costs", "compared"):
        text = text.replace(json.dumps({name: report[name]}, indent=2)[2:-2], compact(name, report[name]))
    path.write_text(text + "\n")


def compact(name, lines):
    inner = ",\n".join(f"    {json.dumps(line)}" for line in lines)
    return f'  "{name}": [\n{inner}\n  ]'
