"""Whether a database connection may serve another request: only if its session is as it was after the login.

A connection that is kept takes what one request told its session to the next one: SET, SET ROLE, search_path,
temporary tables, advisory locks, LISTEN, prepared statements, cursors WITH HOLD. So a connection is kept only
while all that it ran is known to leave nothing: transactions, and single statements of the kind that Django's
compiler makes from querysets, which call known functions alone. Anything else, and any other driver than
psycopg 3, marks it as altered, and it is closed when its request has ended.

What cannot be seen is a trigger, a view, a cast or an operator of the database itself that alters the session.
"""

import functools
import re

try:
    import psycopg
except ImportError:  # another driver
    psycopg = None

REMEMBERED = 10_000  # texts, which have placeholders in the place of values; then all are forgotten

# A literal that begins with a letter (E'', U&'', N'') has other rules, and stays, to be refused.
QUOTED = re.compile(r"""(?<![a-z0-9_&])'(?:[^']|'')*'|"(?:[^"]|"")+\"""")
# What is left of literals with other rules, dollar quotes, comments, a second statement.
REFUSED = re.compile(r"['\"\\$;]|--|/\*")
SAVEPOINT = re.compile(r"(?:savepoint|release savepoint|rollback to savepoint) (?:Q|\w+)")
BEGINNING = re.compile(r"\(*select\b|insert into Q(?:\.Q)?|update Q|delete from Q|\(*with Q as")
CALLED = re.compile(r"(\w+)\s*\(")
OF_A_SCHEMA = re.compile(r"\.\s*\w+\s*\(")
KNOWN = frozenset(
    # what is no function
    "all and any array as between by case conflict distinct else exists filter from group having ilike in is join "
    "lateral like limit not nulls on or over select set some then union values when where within "
    # types
    "bit char character decimal interval numeric time timestamp timestamptz varchar varying "
    # what only tells, or waits
    "current_setting pg_backend_pid pg_current_xact_id_if_assigned pg_sleep txid_current version "
    # what Django's expressions are made of
    "abs acos age array_agg array_length array_position array_to_string ascii asin atan atan2 avg bit_and bit_or "
    "bit_xor bool_and bool_or btrim cardinality cast ceil ceiling chr clock_timestamp coalesce concat concat_ws corr "
    "cos cot count covar_pop covar_samp cume_dist current_date current_timestamp date date_part date_trunc degrees "
    "dense_rank exp extract first_value floor gen_random_uuid greatest initcap jsonb_agg jsonb_array_elements "
    "jsonb_array_length jsonb_build_array jsonb_build_object jsonb_extract_path jsonb_extract_path_text "
    "jsonb_object_agg jsonb_path_exists jsonb_path_query jsonb_set jsonb_typeof json_array json_object lag last_value "
    "lead least left length ln localtimestamp log lower lpad ltrim make_date make_interval max md5 min mod mode now "
    "nth_value ntile nullif octet_length overlay percent_rank percentile_cont percentile_disc phraseto_tsquery pi "
    "plainto_tsquery position power radians random range rank regexp_replace regr_avgx regr_avgy regr_count "
    "regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat replace reverse right round row row_number "
    "rpad rtrim sha224 sha256 sha384 sha512 sign similarity sin sqrt statement_timestamp stddev_pop stddev_samp "
    "string_agg string_to_array strict_word_similarity strpos substr substring sum tan to_char to_date to_jsonb "
    "to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim trunc ts_headline ts_rank ts_rank_cd "
    "unaccent unnest upper var_pop var_samp websearch_to_tsquery width_bucket word_similarity".split()
)


def text_leaves_nothing(text):
    found = QUOTED.sub(lambda one: "0" if one[0][0] == "'" else "Q", text.strip().lower())
    if SAVEPOINT.fullmatch(found):
        return True
    beginning = BEGINNING.match(found)
    if not beginning:
        return False
    rest = found[beginning.end() :]  # without an INSERT's table, whose columns look like a function's arguments
    if REFUSED.search(rest) or OF_A_SCHEMA.search(rest) or re.search(r"\binto\b", rest):
        return False
    return KNOWN.issuperset(CALLED.findall(rest))


@functools.lru_cache(REMEMBERED)
def remembered(text):
    return text_leaves_nothing(text)


def leaves_nothing(statement):
    """Whether this statement is known to leave nothing in its session. Composed SQL and bytes are not."""
    return isinstance(statement, str) and remembered(statement)


@functools.cache
def watched_connection(kind):
    """A class of psycopg's connections, that know whether their session was altered.

    Each exchange with the server goes through wait(): what did not say before that it leaves nothing, alters.
    """

    class Connection(kind):  # one base and no slots, or no connection could become one
        altered = False
        harmless = 0

        def wait(self, *given, **named):
            if not self.harmless:
                self.altered = True
            return super().wait(*given, **named)

        def leave_nothing(self, function, *given, **named):
            self.harmless += 1
            try:
                return function(*given, **named)
            finally:
                self.harmless -= 1

        def commit(self):
            return self.leave_nothing(super().commit)

        def rollback(self):
            return self.leave_nothing(super().rollback)

        def set_autocommit(self, value):
            return self.leave_nothing(super().set_autocommit, value)

    return Connection


@functools.cache
def watched_cursor(kind):
    class Cursor(kind):
        def execute(self, query, *given, **named):
            if leaves_nothing(query):
                return self.connection.leave_nothing(super().execute, query, *given, **named)
            return super().execute(query, *given, **named)

        def executemany(self, query, *given, **named):
            if leaves_nothing(query):
                return self.connection.leave_nothing(super().executemany, query, *given, **named)
            return super().executemany(query, *given, **named)

    return Cursor


def watch(connection):
    """Begin to watch a connection of Django's that was just opened."""
    driver = connection.connection
    if psycopg and issubclass(type(driver), psycopg.Connection) and not hasattr(driver, "altered"):
        driver.__class__ = watched_connection(type(driver))
        driver.cursor_factory = watched_cursor(driver.cursor_factory)


def altered(connection):
    """Whether its session may differ from what it was after the login. True for what is not watched."""
    return getattr(connection.connection, "altered", True)
