"""Stands in for APIs of other companies, so that nothing here depends on the internet.

A process of its own: an upstream inside the workers that call it could wait for itself. Plain ASGI, as it
needs nothing of Django: `uvicorn upstreams.asgi:application --uds upstreams.sock`.

    GET /weather?q=Seoul&delay=1&jitter=0.2&failures=0.1
    GET /restaurants  /news  /stocks     likewise
    GET /calls                           what became of the calls since the start

The same `q` always gets the same answer. `delay` and `jitter` are seconds, `failures` the share of calls that
are answered by 503, after the delay, as a real service that is in trouble would.
"""

import asyncio
import json
import math
import random
from dataclasses import asdict, dataclass
from urllib.parse import parse_qsl

# Each parameter's default and its bound: a caller cannot hold a connection for longer than 12 s.
NUMBERS = {"delay": (0, 10), "jitter": (0, 2), "failures": (0, 1)}
MAX_Q = 64


class BadRequestError(Exception):
    pass


@dataclass
class Calls:
    open: int = 0
    answered: int = 0
    failed: int = 0
    abandoned: int = 0  # the caller went before the answer


calls = Calls()


def weather(city, rng):
    return {
        "city": city,
        "sky": rng.choice(["clear", "a few clouds", "overcast", "light rain", "fog until noon"]),
        "celsius": rng.randint(-4, 31),
        "wind_kmh": rng.randint(2, 40),
    }


def restaurants(city, rng):
    names = rng.sample(
        ["The Arbour", "Vine & Salt", "Wisteria House", "Trellis", "Ivy Counter", "포도나무집"], 3
    )
    return {
        "city": city,
        "tables": [
            {
                "name": name,
                "kitchen": rng.choice(["Korean", "Italian", "seasonal", "noodles", "grill"]),
                "stars": rng.randint(30, 50) / 10,
                "minutes_on_foot": rng.randint(2, 18),
            }
            for name in names
        ],
    }


def news(topic, rng):
    headlines = [
        "What {} taught us this year",
        "A quiet week for {}",
        "Three questions about {}, answered",
        "Why everybody waits for {}",
        "{} returns, slower and better",
    ]
    return {"topic": topic, "headlines": [headline.format(topic) for headline in rng.sample(headlines, 3)]}


def stocks(symbol, rng):
    return {
        "symbol": symbol,
        "price": rng.randint(800, 40000) / 100,
        "change_percent": rng.randint(-450, 450) / 100,
        "currency": "EUR",
    }


# Each with what it is asked for when nobody says.
SERVICES = {
    "/weather": (weather, "Seoul"),
    "/restaurants": (restaurants, "Seoul"),
    "/news": (news, "async Django"),
    "/stocks": (stocks, "PRGL"),
}


def number(query, name):
    default, most = NUMBERS[name]
    try:
        value = float(query.get(name, default))
    except ValueError:
        raise BadRequestError(f"{name} is not a number") from None
    if not (math.isfinite(value) and 0 <= value <= most):
        raise BadRequestError(f"{name} is not between 0 and {most}")
    return value


def parse(query_string):
    try:
        query = dict(
            parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=10)
        )
    except ValueError:
        raise BadRequestError("the query is not UTF-8, or has more than ten fields") from None
    if len(query.get("q", "")) > MAX_Q:
        raise BadRequestError(f"q is longer than {MAX_Q} characters")
    return query.get("q"), *(number(query, name) for name in NUMBERS)


async def until_gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(send, status, body):
    body = json.dumps(body, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def call(path, query_string, receive, send):
    service, default = SERVICES[path]
    q, delay, jitter, failures = parse(query_string)
    q = q or default
    calls.open += 1
    caller = asyncio.create_task(until_gone(receive))
    try:
        # Which call is late or fails is chance; what it says is not.
        gone, _ = await asyncio.wait({caller}, timeout=delay + random.uniform(0, jitter))  # noqa: S311
        if gone:
            calls.abandoned += 1
        elif random.random() < failures:  # noqa: S311
            calls.failed += 1
            await answer(send, 503, {"error": f"{path[1:]} is in trouble, as asked"})
        else:
            calls.answered += 1
            await answer(send, 200, service(q, random.Random(f"{path}?{q}")))  # noqa: S311
    finally:
        calls.open -= 1
        caller.cancel()


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(f"no {scope['type']} here")
    if scope["path"] not in {*SERVICES, "/calls"}:
        await answer(send, 404, {"error": f"there are {', '.join(SERVICES)} and /calls"})
    elif scope["method"] != "GET":
        await answer(send, 405, {"error": "only GET"})
    elif scope["path"] == "/calls":
        await answer(send, 200, asdict(calls))
    else:
        try:
            await call(scope["path"], scope["query_string"], receive, send)
        except BadRequestError as error:
            await answer(send, 400, {"error": str(error)})
