"""Code that an agent patched before the application was made runs as often as under Django's handler."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from patch_points import POINTS, REQUESTS, STYLES, WAYS
from workers import HANDLERS


@pytest.fixture(scope="module")
def counts(django, directory):
    def ask(handler):
        environment = {"DJANGO_SETTINGS_MODULE": "agentsite", "PERGOLA_HANDLER": handler}
        done = subprocess.run(
            [sys.executable, "patch_points.py"],
            cwd=Path(__file__).parent,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    with ThreadPoolExecutor(len(HANDLERS)) as pool:
        return dict(zip(HANDLERS, pool.map(ask, HANDLERS), strict=True))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("point", POINTS)
def test_patched_code_runs_as_often_as_under_djangos_handler(counts, point, style):
    django, lean = (counts[handler][style][point] for handler in HANDLERS)
    assert any(django.values()), django
    if point.endswith("listen_for_disconnect"):
        # the task that listens may not have begun when a view without a thread has answered
        django, lean = (
            {name: count for name, count in counted.items() if name != "plain"} for counted in (django, lean)
        )
    assert lean == django


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("point", WAYS)
def test_a_patched_way_to_a_thread_has_the_calls_of_the_orm(counts, point, style):
    django, lean = (counts[handler][style][point] for handler in HANDLERS)
    # the view `queries` calls the ORM six times, and `cursors` makes one call
    assert lean["queries"] - lean["cursors"] == django["queries"] - django["cursors"] == 5
    assert set(lean) == {"the start", *REQUESTS}
