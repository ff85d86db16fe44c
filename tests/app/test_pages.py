import re

import pytest
from core.models import Visit

pytestmark = pytest.mark.usefixtures("collected")


def test_the_home_page_loads_only_hashed_files_and_nothing_inline(client, collected):
    page = client.get("/").content.decode()
    links = re.findall(r'(?:src|href)="/static/([^"]+)"', page)
    assert len(links) >= 3
    for link in links:
        assert re.search(r"\.[0-9a-f]{12}\.(css|js|svg)$", link)
        assert (collected / link).is_file()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page)


@pytest.mark.django_db
def test_the_visits_page_shows_the_last_ten_and_counts_all(client):
    Visit.objects.bulk_create(Visit() for _ in range(12))
    page = client.get("/visits/").content.decode()
    assert page.count("<time") == 10
    assert "12 in all" in page


@pytest.mark.django_db
def test_looking_adds_no_visit_and_posting_adds_one(client):
    client.get("/visits/")
    assert Visit.objects.count() == 0
    assert client.post("/visits/").url == "/visits/"
    assert Visit.objects.count() == 1


@pytest.mark.django_db
def test_a_form_from_elsewhere_is_refused(client):
    client.handler.enforce_csrf_checks = True
    assert client.post("/visits/").status_code == 403
    assert Visit.objects.count() == 0


def test_the_cookie_of_the_form_goes_over_https_alone(client, db):
    cookie = client.get("/visits/").cookies["csrftoken"]
    assert cookie["secure"]


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz"])
def test_a_page_that_only_shows_takes_no_post(client, path):
    assert client.post(path).status_code == 405


def test_an_unknown_host_is_refused(client):
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 400
