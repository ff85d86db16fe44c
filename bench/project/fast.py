"""The outside reference: FastAPI with psycopg's async pool, through PgBouncer. No middleware, no ORM."""

import json
import os
from contextlib import asynccontextmanager

import redis.asyncio
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from psycopg_pool import AsyncConnectionPool

from bench.project import calls, sql
from bench.project.names import CACHED, CACHED_SECONDS, VALUE

POOL = AsyncConnectionPool(
    os.environ["DATABASE_URL"],
    open=False,
    min_size=2,
    max_size=10,  # of each worker: together as many as PgBouncer's
    timeout=60,
    # without it, psycopg's default, each block is a transaction: three ways to PostgreSQL for one query
    kwargs={"autocommit": "BENCH_AUTOCOMMIT" in os.environ},
)
CACHE = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])


@asynccontextmanager
async def lifespan(_):
    async with POOL, CACHE:
        yield


application = FastAPI(lifespan=lifespan)


@application.get("/async/hello", response_class=PlainTextResponse)
async def hello():
    return "hello"


@application.get("/async/row/{pk}")
async def row(pk: int):
    async with POOL.connection() as connection:
        return await sql.one(connection, pk)


@application.get("/async/rows")
async def rows():
    async with POOL.connection() as connection:
        return await sql.many(connection)


@application.get("/async/fanout")
async def fanout():
    return {"celsius": await calls.together()}


@application.get("/async/cache")
async def cache():
    found = await CACHE.get(f"fastapi:{CACHED}")
    if found is None:
        found = json.dumps(VALUE)
        await CACHE.set(f"fastapi:{CACHED}", found, CACHED_SECONDS)
    return json.loads(found)
