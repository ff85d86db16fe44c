"""PgBouncer goes and comes back under clients whose connections are kept: nobody notices."""

import threading
import time

import httpx

PAGE = "/lab/sync/row/"  # of the sample: one query
CLIENTS = 8
INSTANCE = "systemctl list-units --plain --legend=no --state=active 'pgbouncer@*.service'"


def test_a_restart_of_pgbouncer_costs_no_request(machine):
    answers, errors, ended = [], [], threading.Event()

    def ask():
        with httpx.Client(base_url=machine.url, verify=machine.tls, timeout=60) as client:
            while not ended.is_set():
                try:
                    answers.append(client.get(PAGE).status_code)
                except httpx.HTTPError as error:
                    errors.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(2)  # of load before
        before = machine.run(INSTANCE)
        machine.run("systemctl restart pgbouncer")
        after = machine.run(INSTANCE)
        time.sleep(2)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert before != after
    assert not errors, errors[:5]
    assert set(answers) == {200}
    assert len(answers) > 50
    print(f"restart of PgBouncer: {len(answers)} requests, {len(errors)} errors")
