"""The outside reference: FastAPI with psycopg's async pool, through PgBouncer. No middleware, no ORM."""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from psycopg_pool import AsyncConnectionPool

from bench.project import calls, sql

POOL = AsyncConnectionPool(
    os.environ["DATABASE_URL"],
    open=False,
    min_size=2,
    max_size=10,  # of each worker: together as many as PgBouncer's
    timeout=60,
    # without it, psycopg's default, each block is a transaction: three ways to PostgreSQL for one query
    kwargs={"autocommit": "BENCH_AUTOCOMMIT" in os.environ},
)


@asynccontextmanager
async def lifespan(_):
    async with POOL:
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
