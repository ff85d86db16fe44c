"""The demonstration of df_websockets: Channels with a layer and a cache in one process, DEBUG on."""

import asyncio
import json
import re

import pytest
from websockets.asyncio.client import connect

APPLICATION = {
    "name": "signals",
    "source": "df-websockets",
    # its manage.py has another name
    "answers": ["APP_DIRECTORY=.", "APP_WEBSOCKET_PATH=/ws/", "APP_HEALTH_PATH=/"],
}
pytestmark = pytest.mark.usefixtures("evidence")


def test_new_app_found_out_the_rest(brought):
    found = {name: brought.settings[name] for name in brought.settings if name.startswith("app_")}
    assert found["app_settings_module"] == "demo_df_websockets.settings"
    assert found["app_settings_overlay"] is True
    assert found["app_asgi"] == "df_websockets.routing:application"
    assert found["app_requirements"] == "uv.lock"


def test_a_page_and_the_static_files_that_it_names(brought):
    page = brought.client.get("/")
    assert page.status_code == 200
    named = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert named
    for path in named:
        answer = brought.client.get(path)
        assert answer.status_code == 200, path
        # twelve digits without a letter are no hash (infra/nginx/conf.d/static.conf.j2)
        assert "immutable" in answer.headers["cache-control"] or re.search(r"\.\d{12}\.", path)


async def test_what_one_visitor_does_all_see(brought):
    """Several processes hold their sockets. The web processes told those by the cache what each visitor
    may hear, and they tell each other by the channel layer. Its own settings have both in memory.
    """
    address = brought.settings["site_url"].replace("https://", "wss://") + "/ws/"
    origin = brought.settings["site_url"]

    def visit():
        brought.client.cookies.clear()
        assert brought.client.get("/").status_code == 200
        return "; ".join(f"{name}={value}" for name, value in brought.client.cookies.items())

    visitors = []
    try:
        for _ in range(6):
            headers = {"Cookie": visit()}
            visitors.append(
                await connect(address, ssl=brought.tls, origin=origin, additional_headers=headers)
            )
        await visitors[0].send(json.dumps({"signal": "demo.html.text", "opts": {}}))
        for visitor in visitors:
            async with asyncio.timeout(20):
                heard = json.loads(await visitor.recv())
            assert heard["signal"] == "html.text"
            assert heard["opts"]["selector"] == ".text .original"
    finally:
        for visitor in visitors:
            await visitor.close()
