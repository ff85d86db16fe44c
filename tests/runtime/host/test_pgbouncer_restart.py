"""PgBouncer goes and comes back under clients whose connections are kept: no request fails."""

import threading

import httpx
from waiting import wait_until

PAGE = "/lab/sync/row/"  # of the sample: one query
CLIENTS = 8
ENOUGH = 100  # answers: each client has asked several times
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
        wait_until(lambda: len(answers) > ENOUGH, "answers before the restart")
        before = machine.run(INSTANCE)
        machine.run("systemctl restart pgbouncer")
        after = machine.run(INSTANCE)
        answered = len(answers)
        wait_until(lambda: len(answers) > answered + ENOUGH, "answers after the restart")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert before != after
    assert not errors, errors[:5]
    assert set(answers) == {200}
    print(f"restart of PgBouncer: {len(answers)} requests, {len(errors)} errors")
