import html
import re

import pytest
from app.servers import ROOT
from core import navigation
from core.models import Visit
from core.navigation import PAGES
from django.template.loader import render_to_string
from django.urls import is_valid_path

pytestmark = pytest.mark.usefixtures("collected")


def test_the_home_page_loads_only_hashed_files_and_nothing_inline(client, collected):
    page = client.get("/").content.decode()
    links = re.findall(r'(?:src|href)="/static/([^"]+)"', page)
    assert len(links) >= 3
    for link in links:
        assert re.search(r"\.[0-9a-f]{12}\.(css|js|svg)$", link)
        assert (collected / link).is_file()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page)


@pytest.mark.parametrize("path", [page.path for pages in PAGES.values() for page in pages])
def test_each_page_of_the_navigation_is_there(path):
    """One that is not would be left out without a word."""
    assert is_valid_path(path)


@pytest.mark.parametrize(
    ("path", "current"),
    [
        ("/dashboard/", 'href="/dashboard/" aria-current="page"'),
        ("/api/", 'href="/api/" aria-current="page"'),
    ],
)
def test_the_navigation_marks_one_page_as_the_current_one(client, path, current):
    page = client.get(path).content.decode()
    assert current in page
    assert page.count("aria-current") == 1


def test_a_page_below_marks_the_one_that_it_belongs_to():
    assert navigation.current("/posts/new/").path == "/posts/"
    assert navigation.current("/lab/orm/").path == "/lab/orm/"
    assert navigation.current("/") is None


def test_a_source_file_is_shown_as_it_stands(client):
    page = client.get("/source/core/views.py").content.decode()
    assert html.escape('render(request, "core/home.html")') in page


def test_each_file_that_a_page_names_as_its_source_is_shown(client):
    pages = (ROOT / "app").glob("*/templates/**/*.html")
    named = {
        path
        for page in pages
        for source in re.findall(r'% about source="([^"]+)"', page.read_text())
        for path in source.split()
    }
    assert len(named) > 20
    assert {client.get(f"/source/{path.removeprefix('app/')}").status_code for path in named} == {200}


@pytest.mark.parametrize(
    "path", ["core/nothing.py", "core/../manage.py", "%2e%2e/x.py", "manage.py", "core/static/core/site.css"]
)
def test_nothing_else_is_shown_as_source(client, path):
    assert client.get(f"/source/{path}").status_code == 404


@pytest.mark.parametrize("number", [400, 403, 404, 500])
def test_the_pages_of_errors_look_like_the_site(number):
    page = render_to_string(f"{number}.html")  # without a request, as Django makes two of them
    assert f'<p class="status">{number}</p>' in page
    assert 'href="/dashboard/"' in page


def test_an_unknown_page_has_its_own_look_and_the_way_back(client):
    answer = client.get("/no-such-page")
    assert answer.status_code == 404
    assert "There is no page at this address" in answer.content.decode()


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
