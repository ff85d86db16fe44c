import sys

import demo
import httpx
import pytest
from django.core.wsgi import get_wsgi_application


@pytest.fixture
def site(settings, tmp_path):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    for name in ("UPSTREAMS_SOCKET", "LAB_ASGI_SOCKET", "LAB_WSGI_SOCKET"):
        setattr(settings, name, tmp_path / "nobody.sock")
    with httpx.Client(
        transport=httpx.WSGITransport(get_wsgi_application()), base_url="https://testserver"
    ) as client:
        yield client


@pytest.mark.django_db
def test_beside_a_development_server_it_says_of_each_part_in_one_line_why_it_is_not_shown(site, capsys):
    demo.show(site)
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in said if "not shown" in line] == ["not shown"] * 2
    assert not [line for line in said if "Traceback" in line]


@pytest.mark.parametrize("url", ["http://localhost:1", "https://localhost:1", "localhost", "http://"])
def test_where_nobody_answers_it_says_in_one_line_what_to_do(url, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo.py", url, "--ca", "/nonexistent"])
    with pytest.raises(SystemExit) as refused:
        demo.main()
    assert capsys.readouterr() == ("", "")
    (line,) = refused.value.code.splitlines()
    assert line.startswith(url)
    assert line.endswith("make up")
