import re

from http3 import ask


def test_answers_name_http_3(client, settings):
    """A browser comes back over it only when it was told."""
    named = client.get("/livez").headers["alt-svc"]
    assert re.match(rf'h3=":{settings["nginx_public_port"]}"', named)


async def test_http_3_answers(settings, authority):
    headers, body = await ask(settings, authority, settings["app_health_path"])
    assert headers[":status"] == "200", (headers, body)
    assert headers["content-type"] == "application/json"
    assert len(body) == int(headers["content-length"])
