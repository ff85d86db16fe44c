"""Which statements are known to leave nothing in a session. A wrong answer hands it on to another request."""

import pytest
from pergola_runtime.sessions import LONGEST, leaves_nothing

HARMLESS = [
    'SELECT "a"."x" FROM "a" WHERE "a"."x" = %s LIMIT 21',
    'SELECT COUNT(*) AS "__count" FROM "a"',
    'SELECT 1 AS "a" FROM "t" WHERE "t"."name" = \'it\'\'s\' LIMIT 1',
    '(SELECT "a"."x" FROM "a") UNION (SELECT "b"."x" FROM "b")',
    'SELECT DATE_TRUNC(\'day\', "a"."at" AT TIME ZONE %s) AS "day", MAX("a"."x") FROM "a" GROUP BY 1',
    'SELECT ROW_NUMBER() OVER (PARTITION BY "a"."x" ORDER BY "a"."y" DESC) FROM "a" FOR UPDATE',
    'INSERT INTO "a" ("x", "set_config") VALUES (%s, %s) RETURNING "a"."id"',
    'INSERT INTO "a" ("x") SELECT * FROM UNNEST((%s)::varchar[])',
    'INSERT INTO "a" ("x") VALUES (%s) ON CONFLICT("x") DO UPDATE SET "x" = EXCLUDED."x"',
    'UPDATE "a" SET "x" = ("a"."x" + %s) WHERE "a"."id" IN (%s, %s)',
    'DELETE FROM "a" WHERE "a"."id" IN (SELECT U0."id" FROM "b" U0)',
    'SAVEPOINT "s1_x1"',
    'RELEASE SAVEPOINT "s1_x1"',
    'ROLLBACK TO SAVEPOINT "s1_x1"',
]
# one for each way to reach a session's state
ALTERING = [
    "SET statement_timeout = 0",
    "SET LOCAL lock_timeout = 0",
    "RESET ALL",
    "SET ROLE other",
    "DISCARD TEMP",
    "BEGIN",
    "LISTEN news",
    "PREPARE one AS SELECT 1",
    "DECLARE one CURSOR WITH HOLD FOR SELECT 1",
    "DO $$ BEGIN PERFORM set_config('a.b', 'c', false); END $$",
    "CALL shop.prepare()",
    "CREATE TEMPORARY TABLE one ()",
    "COPY a FROM STDIN",
    "SELECT set_config('a.b', %s, false)",
    'SELECT "a"."x" FROM "a" WHERE "a"."x" = set_config(%s, %s, false)',
    'SELECT "a"."x" FROM "a" ORDER BY pg_advisory_lock(1)',
    'UPDATE "a" SET "x" = (SELECT set_config(%s, %s, false))',
    'WITH "x" AS (SELECT pg_advisory_lock(1)) SELECT * FROM "x"',
    'INSERT INTO "a" ("x") VALUES (set_config(%s, %s, false))',
    'DELETE FROM "a" WHERE pg_try_advisory_lock("a"."id")',
    'UPDATE "pg_settings" SET "setting" = %s',
    'SELECT "set_config"(%s, %s, false)',
    'SELECT "pg_catalog"."set_config"(%s, %s, false)',
    "SELECT pg_catalog.set_config(%s, %s, false)",
    "SELECT public.lower(%s)",
    "SELECT SET_CONFIG (%s, %s, false)",
    "SELECT set_config\n(%s, %s, false)",
    "SELECT set_config/**/(%s, %s, false)",
    "SELECT set_config -- )\n(%s, %s, false)",
    "SELECT 1; SET a.b = 'c'",
    "SELECT $$x$$, set_config($$a.b$$, $$c$$, false)",
    "SELECT E'\\'' || set_config('a.b', 'c', false) || ''",
    "SELECT U&'\\0061', set_config('a.b', 'c', false)",
    "SELECT 'one' 'two\\', set_config('a.b', 'c', false)",
    'SELECT "x" INTO TEMPORARY "y" FROM "z"',
    "SELECT nextval('ids')",
    "SELECT setval('ids', 1)",
    "SELECT currval('ids')",
    "SELECT lastval()",
    "SELECT setseed(0.5)",
    "SELECT lo_open(1, 2)",
    "SELECT dblink_connect('x')",
    "SELECT f\N{LATIN SMALL LETTER E WITH ACUTE}(1)",
    "SELECT\N{NO-BREAK SPACE}set_config('a.b', 'c', false)",
    "EXPLAIN ANALYZE SELECT set_config('a.b', 'c', false)",
    "VALUES (set_config('a.b', 'c', false))",
    "TABLE a",
    "",
]


@pytest.mark.parametrize("statement", HARMLESS)
def test_what_the_compiler_makes_is_known(statement):
    assert leaves_nothing(statement)
    assert leaves_nothing(statement.lower())


@pytest.mark.parametrize("statement", ALTERING)
def test_what_may_alter_a_session_is_not_known(statement):
    assert not leaves_nothing(statement)
    assert not leaves_nothing(statement.upper())
    assert not leaves_nothing(f"  {statement}\n")


def test_a_statement_too_long_to_remember_is_looked_at_as_well():
    values = " IN ({})".format(", ".join(["%s"] * LONGEST))
    assert leaves_nothing(HARMLESS[0] + values)
    assert not [one for one in ALTERING if leaves_nothing(one + values)]


def test_composed_sql_and_bytes_are_not_known():
    from psycopg import sql

    assert not leaves_nothing(sql.SQL("SELECT 1"))
    assert not leaves_nothing(b"SELECT 1")
