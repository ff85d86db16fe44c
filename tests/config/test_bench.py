"""The benchmark's own arithmetic; how fast anything is is no test's business."""

import itertools
import json
import math
import xml.etree.ElementTree as ET
from collections import Counter

import pytest
from house import ROOT

from bench import plan, report, wrk
from bench.contestants import BASE, CONTESTANTS, ENDPOINTS, SERVICES
from bench.sockets import PING, TEXT, frames

SAID = """\
Running 2s test @ http://127.0.0.1:5600/async/row/1
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    41.02ms   10.11ms   1.20s    81.10%
    Req/Sec     1.57k   101.50     1.80k    70.00%
  Latency Distribution
     50%  635.00us
     75%   45.00ms
     90%   60.11ms
     99%    1.15s{space}
  3140 requests in 2.00s, 1.20MB read
Requests/sec:   1570.00
Transfer/sec:    614.40KB
""".replace("{space}", " ")  # which wrk puts behind seconds
ERRORS = SAID.replace(
    "Requests/sec",
    "  Socket errors: connect 1, read 2, write 0, timeout 4\n  Non-2xx or 3xx responses: 140\nRequests/sec",
)


def test_wrk_is_read_in_its_units():
    figures = wrk.parse(SAID)
    assert (figures.rps, figures.p50_ms, figures.p99_ms, figures.errors) == (1570, 0.635, 1150, 0)


def test_an_error_is_counted_and_no_request_served():
    figures = wrk.parse(ERRORS)
    assert (figures.rps, figures.errors) == (1500, 147)


def test_a_cell_without_an_answer_has_no_latency():
    silent = wrk.parse(SAID.replace("3140 requests", "0 requests"))
    assert silent.rps == 0
    assert math.isnan(silent.p50_ms)


def test_a_wrk_that_did_not_run_is_refused_with_its_words():
    with pytest.raises(wrk.NoFiguresError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:5600 Connection refused")


def cell(contestant, rps, turn=0, **others):
    figures = {"p50_ms": 1.0, "p99_ms": 2.0, "errors": 0, "rss_mb": 100.4, "pg_connections": 3, "cpu_ms": 0.5}
    where = {"endpoint": "hello", "clients": 64, "path": "direct", "group": 0, "round": turn}
    return {"contestant": contestant, "rps": rps} | where | figures | others


def test_a_row_is_a_median_and_has_the_worst_of_what_must_not_happen():
    cells = [cell("stock", rps, turn, errors=turn) for turn, rps in enumerate((10.0, 30.0, 20.0))]
    (row,) = report.rows(cells)
    assert row == {
        "contestant": "stock", "endpoint": "hello", "clients": 64, "path": "direct",
        "rps": 20.0, "p50_ms": 1.0, "p99_ms": 2.0, "errors": 2, "rss_mb": 101, "pg_connections": 3,
    }  # fmt: skip


def test_a_ratio_pairs_those_of_one_round():
    # the machine was slow in the second round, for both
    cells = [cell("pergola", 100, 0), cell("stock", 20, 0), cell("pergola", 10, 1), cell("stock", 2, 1)]
    assert report.ratios(cells, "pergola", "stock", endpoint="hello", clients=64) == [5, 5]


def test_a_round_that_one_of_them_lacks_is_no_pair():
    cells = [cell("pergola", 100, 0), cell("stock", 20, 0), cell("stock", 2, 1)]
    assert report.ratios(cells, "pergola", "stock", endpoint="hello", clients=64) == [5]


def test_a_second_worker_is_judged_by_the_rounds_in_which_both_ran():
    slower = [cell("pergola", 10, turn, group=1) for turn in range(3)]  # at another time of the run
    fewer = [cell(name, 10, group=2, clients=1) for name in ("pergola", "pergola-1")]
    cells = [*slower, *fewer, *(cell(name, rps) for name, rps in (("pergola", 180), ("pergola-1", 100)))]
    assert report.workers(cells) == [
        {"contestant": "pergola", "endpoint": "hello", "clients": 64, "ratio": 1.8}
    ]


def test_the_parts_of_a_row_are_the_whole_of_it():
    alone = {"orm_ms": 0.3, "psycopg_ms": 0.1}
    effort = {("pergola", "row", 64, "direct"): 1.0, ("pergola", "hello", 64, "direct"): 0.25}
    *_, table = report.parts_of_a_row(alone, effort)
    assert [line.split(" | ")[1:] for line in table.splitlines()[2:]] == [
        ["0.25", "25 |"], ["0.10", "10 |"], ["0.20", "20 |"], ["0.45", "45 |"],
    ]  # fmt: skip


def test_targets_are_judged_and_those_without_cells_left_out():
    cells = [cell("pergola", 39), cell("stock", 10), cell("wsgi", 39)]
    found = {target["target"]: target["reached"] for target in report.targets(cells, 20)}
    assert found == {
        "hello, 64 clients: pergola to stock": False,
        "hello, 64 clients: pergola to wsgi": True,
    }


def test_many_clients_are_judged_by_errors_and_connections():
    cells = [cell("pergola", 9, endpoint="row", clients=2000, errors=1, pg_connections=20)]
    verdicts = [target["reached"] for target in report.targets(cells, 20)]
    assert verdicts == [False, True]


@pytest.fixture
def written(tmp_path):
    cells = [cell("pergola", 100), cell("stock", 20, p50_ms=math.nan, p99_ms=math.nan)]
    told = {
        "date": "2026-11-20",
        "commit": "1a2b3c4",
        "load": 0.1,
        "machine": {"cores": 2, "processor": "P", "memory_gb": 4, "kernel": "6", "system": "Debian"},
        "versions": {"django": "5.2.19"},
        "alone": {"orm_ms": 0.3, "psycopg_ms": 0.1},
    }
    path = tmp_path / "2026-11-20.json"
    report.write(report.compose(cells, told, 20), path)
    return path


def test_what_is_written_has_the_names_that_others_build_on(written):
    found = json.loads(written.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {"machine", "versions", "rows"} <= set(found)
    assert set(found["rows"][0]) == {
        "contestant", "endpoint", "clients", "path",
        "rps", "p50_ms", "p99_ms", "errors", "rss_mb", "pg_connections",
    }  # fmt: skip
    assert found["rows"][1]["p50_ms"] is None


def test_the_table_begins_with_the_targets_and_the_chart_is_a_picture(written):
    text = written.with_suffix(".md").read_text()
    assert text.index("hello, 64 clients: pergola to stock | 4 | 5") < text.index("## hello")
    picture = ET.parse(written.with_suffix(".svg"))  # noqa: S314  our own
    assert "pergola" in [element.text for element in picture.iter()]


def test_a_default_run_takes_about_25_minutes():
    assert plan.takes(plan.chosen()) < 25 * 60


def test_a_part_holds_what_was_asked_for():
    groups = plan.chosen(only=["hello"], contestants=["stock"], clients=[64])
    assert groups
    assert {(group.endpoint, group.contestants, group.clients) for group in groups} == {
        ("hello", ("stock",), 64)
    }


def test_a_full_run_has_each_contestant_on_each_of_its_endpoints():
    had = {(group.endpoint, name) for group in plan.chosen(full=True) for name in group.contestants}
    wanted = {(endpoint, name) for name, one in CONTESTANTS.items() for endpoint in one.endpoints}
    assert had == {pair for pair in wanted if pair[1] != BASE}


def test_base_runs_beside_this_runtime_on_each_endpoint_in_nine_rounds():
    groups = plan.against_base()
    assert [group.endpoint for group in groups] == list(ENDPOINTS)
    assert {(group.contestants, group.rounds) for group in groups} == {(("pergola", BASE), 9)}
    assert SERVICES[BASE].runtime != SERVICES["pergola"].runtime


def test_base_is_compared_by_the_median_of_the_rounds_processor_time():
    cells = [cell("pergola", 1, turn, cpu_ms=cost) for turn, cost in enumerate((1.0, 1.1, 5.0))]
    cells += [cell(BASE, 1, turn, cpu_ms=1.0) for turn in range(3)]
    (found,) = report.compared(cells)
    assert (found["endpoint"], found["cpu_ratio"], found["rounds"]) == ("hello", 1.1, 3)
    assert (found["lowest"], found["highest"]) == (1.0, 5.0)


def test_every_target_is_measured_by_a_default_run():
    groups = plan.chosen()
    for target in report.TARGETS:
        assert any(
            (group.endpoint, group.clients, group.path) == (target.endpoint, target.clients, "direct")
            and {target.ours, target.theirs} <= set(group.contestants)
            for group in groups
        ), target.text


def test_what_is_close_to_its_target_is_measured_again_in_a_default_run():
    rounds = Counter()
    for group in plan.chosen(paths=["direct"]):
        for pair in itertools.permutations(group.contestants, 2):
            rounds[*pair, group.endpoint, group.clients] += group.rounds
    assert rounds["pergola", "wsgi", "rows", 64] == 15
    assert rounds["pergola", "fastapi", "row", 64] == 15
    assert rounds["pergola", "wsgi", "session", 64] == 10
    assert rounds["pergola", "stock", "hello", 64] == 5


def test_each_contestant_has_a_service_that_is_used():
    assert {contestant.service for contestant in CONTESTANTS.values()} == set(SERVICES)
    assert all(set(contestant.endpoints) <= set(ENDPOINTS) for contestant in CONTESTANTS.values())


def test_frames_are_read_though_they_come_in_pieces():
    text, ping = b"\x81\x05hello", b"\x89\x00"
    long = b"\x81\x7e\x00\x80" + bytes(128)
    found, left = frames(text + ping + long + text[:3])
    assert found == [(TEXT, b"hello"), (PING, b""), (TEXT, bytes(128))]
    assert left == text[:3]


def test_everything_of_the_benchmark_is_explained():
    text = (ROOT / "bench/README.md").read_text()
    missing = [name for name in CONTESTANTS if f"`{name}`" not in text]
    assert not missing
