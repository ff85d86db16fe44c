"""The project that django-silk is developed with: plain WSGI, DEBUG on, a key in the repository."""

import re
from pathlib import Path

import pytest

APPLICATION = {
    "name": "silk",
    "source": "django-silk",
    "files": {"packages.txt": (Path(__file__).parent / "silk.txt").read_text()},
    "answers": ["APP_REQUIREMENTS=packages.txt", "APP_HEALTH_PATH=/admin/login/"],
}
pytestmark = pytest.mark.usefixtures("evidence")


def test_new_app_found_out_the_rest(brought):
    found = {name: brought.settings[name] for name in brought.settings if name.startswith("app_")}
    assert found["app_directory"] == "project"
    assert found["app_settings_module"] == "project.settings"
    assert found["app_settings_overlay"] is True
    assert (found["app_asgi"], found["app_websocket_path"], found["app_celery"]) == ("", "", "")


def test_a_page_and_the_static_files_that_it_names(brought):
    page = brought.client.get("/silk/")
    assert page.status_code == 200
    styles = re.findall(r'href="(/static/silk/[^"]+\.css)"', page.text)
    assert styles
    for path in styles:
        answer = brought.client.get(path)
        assert answer.status_code == 200, path
        # from nginx, and good for ever: the name carries a hash
        # twelve digits without a letter are no hash (infra/nginx/conf.d/static.conf.j2)
        assert "immutable" in answer.headers["cache-control"] or re.search(r"\.\d{12}\.", path)
        assert re.search(r"\.[0-9a-f]{12}\.css$", path)


def test_the_admin_asks_who_is_there_and_takes_a_form(brought):
    page = brought.client.get("/admin/")
    assert page.url.path == "/admin/login/"
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]
    assert "secure" in page.headers["set-cookie"].lower()
    wrong = {"username": "nobody", "password": "wrong", "csrfmiddlewaretoken": token}
    answer = brought.client.post(page.url, data=wrong, headers={"Referer": str(page.url)})
    assert answer.status_code == 200
    assert "Please enter the correct username and password" in answer.text


def test_what_is_written_is_there_for_the_next_request(brought):
    """Through PgBouncer, by a view that the project wants in a transaction of its own."""
    page = brought.client.get("/example_app/create")
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]
    row = {"name": "a blind from outside", "csrfmiddlewaretoken": token}
    assert brought.client.post(page.url, data=row, headers={"Referer": str(page.url)}).status_code == 200
    assert "a blind from outside" in brought.client.get("/example_app/").text
    # and its middleware, which records each request, did so
    assert "/example_app/" in brought.client.get("/silk/requests/").text


def test_an_error_shows_nothing_of_the_code(brought):
    """The project's own settings say DEBUG = True."""
    answer = brought.client.get("/nowhere/")
    assert answer.status_code == 404
    assert "DEBUG" not in answer.text


def test_a_stored_file_is_given_out_as_a_download(brought):
    """It may be a page that somebody uploaded: nothing in it runs with this site's name."""
    code = (
        "from django.core.files.base import ContentFile as F; "
        "from django.core.files.storage import default_storage as s; "
        "print(s.url(s.save('products/page.html', F(b'<script>alert(1)</script>'))))"
    )
    path = brought.replica.run("sudo", "app-manage", "shell", "-v", "0", "-c", code).split()[-1]
    answer = brought.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
