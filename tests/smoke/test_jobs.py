"""The page of jobs, read; ordering one is infra's."""


def test_the_page_answers_and_is_kept_nowhere(client):
    answer = client.get("/jobs/")
    assert answer.status_code == 200
    assert "no-store" in answer.headers["cache-control"]


def test_nobodys_job_has_no_stream(client):
    path = "/jobs/00000000-0000-4000-8000-000000000000/events"
    assert client.get(path).status_code == 404
