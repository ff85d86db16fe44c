"""`python -m bench.project.alone PK` says what a row costs a thread that nothing else disturbs, as JSON.

{"orm_ms": 0.31, "psycopg_ms": 0.12}   processor time of get(), and of what psycopg does of it
"""

import json
import statistics
import sys
import time

import django

django.setup()

from django.db import connection  # noqa: E402
from posts.models import Post  # noqa: E402

ROUNDS, TIMES = 7, 300


def cost(call):
    began = time.thread_time()
    for _ in range(TIMES):
        call()
    return 1000 * (time.thread_time() - began) / TIMES


def measured(pk):
    def orm():
        Post.objects.get(pk=pk)

    def psycopg():
        with connection.connection.cursor() as cursor:
            cursor.execute(*question).fetchone()

    orm()  # which opens the connection
    question = Post.objects.filter(pk=pk)[:21].query.sql_with_params()  # as get() limits it
    cost(orm)
    found = [{"orm_ms": cost(orm), "psycopg_ms": cost(psycopg)} for _ in range(ROUNDS)]
    return {name: round(statistics.median(turn[name] for turn in found), 3) for name in found[0]}


print(json.dumps(measured(int(sys.argv[1]))))
