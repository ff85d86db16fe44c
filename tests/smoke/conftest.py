"""The site as a client sees it. These tests know its address and its settings, and log in nowhere."""

import contextlib
import ssl

import httpx
import pytest


@pytest.fixture(scope="session")
def settings(edge):
    return edge


@pytest.fixture(scope="session")
def url(settings):
    return settings["site_url"]


@pytest.fixture
def tls(authority):
    return ssl.create_default_context(cafile=authority)


@pytest.fixture
def client(request, url, tls):
    """A browser that speaks HTTP/2 and follows no redirect; a test that fails shows what it was told."""
    answers = []

    def evidence():
        lines = []
        for answer in answers[-3:]:
            lines += [
                f"{answer.request.method} {answer.request.url}",
                f"{answer.http_version} {answer.status_code}",
            ]
            lines += [f"  {name}: {value}" for name, value in answer.headers.multi_items()]
            with contextlib.suppress(httpx.ResponseNotRead):
                lines.append(f"  {answer.content[:300]!r}")
        return "the last answers", "\n".join(lines)

    request.node.evidence = [evidence]
    with httpx.Client(
        base_url=url, verify=tls, http2=True, timeout=15, event_hooks={"response": [answers.append]}
    ) as browser:
        yield browser
