import re

import pytest
from django.core.management import call_command

pytestmark = pytest.mark.django_db


async def test_under_asgi_async_code_runs_on_the_event_loop_behind_the_view(async_client):
    answer = (await async_client.get("/jobs/bridge/data?calls=5")).json()
    assert answer["server"] == "ASGI"
    loops = {name: row["loops"] for name, row in answer["rows"].items()}
    assert loops["async_to_sync, from here"] == 1
    assert loops["async_to_sync, no event loop behind it"] == 5
    assert answer["middleware"] > 0


def test_under_wsgi_each_call_makes_an_event_loop(client):
    answer = client.get("/jobs/bridge/data?calls=5").json()
    assert answer["server"] == "WSGI"
    assert answer["rows"]["async_to_sync, from here"]["loops"] == 5


def test_a_management_command_calls_async_code(capsys):
    call_command("bridge_costs", calls=3)
    assert re.search(r"3 event loops  async_to_sync, from here", capsys.readouterr().out)


@pytest.mark.parametrize("calls", ["0", "201", "x", "1.5"])
def test_a_number_of_calls_out_of_bounds_is_refused(client, calls):
    answer = client.get(f"/jobs/bridge/data?calls={calls}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("calls")


def test_the_page_has_nothing_inline(client, collected):
    page = client.get("/jobs/bridge/").content.decode()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page)
