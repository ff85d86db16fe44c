"""Whether a database connection may serve another request: only if its session is as it was after the login.

A kept connection carries session state from one request to the next: SET, SET ROLE, search_path, temporary
tables, advisory locks, LISTEN, prepared statements, cursors WITH HOLD. So a connection is kept only while all
that it ran is known to leave nothing: transactions, and single statements of the kind that Django's compiler
makes from querysets, which call known functions alone. Anything else, and any other driver than psycopg 3,
marks it as altered, and it is closed when its request ends.

Not seen: a trigger, a view, a cast, an operator or a function called as `row.function` of the database itself
that alters the session; what lastval() and currval() return after an INSERT; statements sent by
`connection.pgconn`.
"""

import functools
import re
from contextvars import ContextVar

try:
    import psycopg
except ImportError:  # another driver
    psycopg = None

# The connection on which this thread or task sends what leaves nothing. (!) Not an attribute of the
# connection, which several threads or tasks may use.
harmless = ContextVar("harmless", default=None)

REMEMBERED = 2_000  # statements; they have placeholders in the place of values
LONGEST = 4096  # characters of a statement that is remembered

# A literal that begins with a letter (E'', U&'', N'') has other rules; it is left in the text, and refused.
QUOTED = re.compile(r"""(?<![a-z0-9_&])'(?:[^']|'')*'|"(?:[^"]|"")+\"""")
# literals with other rules, dollar quotes, comments, a second statement
REFUSED = re.compile(r"['\"\\$;]|--|/\*")
SAVEPOINT = re.compile(r"(?:savepoint|release savepoint|rollback to savepoint) (?:Q|\w+)")
BEGINNING = re.compile(r"\(*select\b|insert into Q(?:\.Q)?|update Q|delete from Q|\(*with Q as")
CALLED = re.compile(r"(\w+)\s*\(")
OF_A_SCHEMA = re.compile(r"\.\s*\w+\s*\(")
KEYWORDS = """
all and any array as between by case conflict distinct else exists filter from group having ilike in is
join lateral like limit not nulls on or over select set some then union values when where within
"""
TYPES = "bit char character decimal interval numeric time timestamp timestamptz varchar varying"
# functions that only return something, or wait
READING = "current_setting pg_backend_pid pg_current_xact_id_if_assigned pg_sleep txid_current version"
# the functions of Django's expressions
FUNCTIONS = """
abs acos age array_agg array_length array_position array_to_string ascii asin atan atan2 avg bit_and
bit_or bit_xor bool_and bool_or btrim cardinality cast ceil ceiling chr clock_timestamp coalesce concat
concat_ws corr cos cot count covar_pop covar_samp cume_dist current_date current_timestamp date
date_part date_trunc degrees dense_rank exp extract first_value floor gen_random_uuid greatest initcap
jsonb_agg jsonb_array_elements jsonb_array_length jsonb_build_array jsonb_build_object
jsonb_extract_path jsonb_extract_path_text jsonb_object_agg jsonb_path_exists jsonb_path_query jsonb_set
jsonb_typeof json_array json_object lag last_value lead least left length ln localtimestamp log lower
lpad ltrim make_date make_interval max md5 min mod mode now nth_value ntile nullif octet_length overlay
percent_rank percentile_cont percentile_disc phraseto_tsquery pi plainto_tsquery position power radians
random range rank regexp_replace regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
regr_sxx regr_sxy regr_syy repeat replace reverse right round row row_number rpad rtrim sha224 sha256
sha384 sha512 sign similarity sin sqrt statement_timestamp stddev_pop stddev_samp string_agg
string_to_array strict_word_similarity strpos substr substring sum tan to_char to_date to_jsonb
to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim trunc ts_headline ts_rank
ts_rank_cd unaccent unnest upper var_pop var_samp websearch_to_tsquery width_bucket word_similarity
"""
# words before a parenthesis that leave nothing in a session
KNOWN = frozenset(f"{KEYWORDS} {TYPES} {READING} {FUNCTIONS}".split())


def text_leaves_nothing(text):
    lowered = text.strip().lower()
    if '"pg_' in lowered:  # an UPDATE of the view pg_settings sets a parameter
        return False
    found = QUOTED.sub(lambda one: "0" if one[0][0] == "'" else "Q", lowered)
    if not found.isascii():  # the name of a function may have letters that \w does not match
        return False
    if SAVEPOINT.fullmatch(found):
        return True
    beginning = BEGINNING.match(found)
    if not beginning:
        return False
    # without an INSERT's table, whose columns look like a function's arguments
    rest = found[beginning.end() :]
    if REFUSED.search(rest) or OF_A_SCHEMA.search(rest) or re.search(r"\binto\b", rest):
        return False
    return KNOWN.issuperset(CALLED.findall(rest))


@functools.lru_cache(REMEMBERED)
def remembered(text):
    return text_leaves_nothing(text)


def leaves_nothing(statement):
    """Whether this statement is known to leave nothing in its session. Composed SQL and bytes are not."""
    if not isinstance(statement, str):
        return False
    return remembered(statement) if len(statement) <= LONGEST else text_leaves_nothing(statement)


@functools.cache
def watched_connection(kind):
    """A subclass of a psycopg connection class; `altered` tells whether the session may differ.

    Each exchange with the server goes through wait(). Outside of leave_nothing() it may alter the session.
    """

    class Connection(kind):  # (!) one base and no slots, or __class__ of a connection could not be set to it
        altered = False

        def wait(self, *given, **named):
            if harmless.get() is not self:
                self.altered = True
            return super().wait(*given, **named)

        def leave_nothing(self, function, *given, **named):
            token = harmless.set(self)
            try:
                return function(*given, **named)
            finally:
                harmless.reset(token)

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
            if leaves_nothing(query) or (query, *given) == self.connection.own_time_zone:
                return self.connection.leave_nothing(super().execute, query, *given, **named)
            return super().execute(query, *given, **named)

        def executemany(self, query, *given, **named):
            if leaves_nothing(query):
                return self.connection.leave_nothing(super().executemany, query, *given, **named)
            return super().executemany(query, *given, **named)

    return Cursor


# What a request may change on the driver's connection without an exchange with the server.
ATTRIBUTES = (
    *("row_factory", "cursor_factory", "server_cursor_factory", "prepare_threshold"),
    *("_notice_handlers", "_notify_handlers", "_autocommit", "prepared_max"),
)
# Methods of an engine that decide where a connection goes and what it first runs. An engine with methods of
# its own, for a database or a user of each tenant, gets a connection for each request.
OPENING = "connect get_connection_params get_new_connection init_connection_state set_autocommit"


def watch(connection):
    """Watch what runs on a connection of Django's that was just opened. Called before its receivers run."""
    driver = connection.connection
    if psycopg and issubclass(type(driver), psycopg.Connection) and not hasattr(driver, "altered"):
        driver.__class__ = watched_connection(type(driver))
        driver.cursor_factory = watched_cursor(driver.cursor_factory)
        driver.as_opened = attributes(driver)
        # what Django sends to each connection whose server has another time zone
        driver.own_time_zone = connection.ops.set_time_zone_sql(), [connection.timezone_name]
        driver.login = login(connection)
        opening = [getattr(type(connection), name) for name in OPENING.split()]
        driver.altered = not all(method.__module__.startswith("django.") for method in opening)


def login(connection):
    """What decides where a connection goes and as whom; code may change it at any time."""
    settings = connection.settings_dict
    named = [settings.get(name) for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")]
    return [*named, {**settings.get("OPTIONS", {})}]


def attributes(driver):
    """What tells of a change by the client alone.

    psycopg copies a map of adapters before the first change, so the map is another one then.
    """
    values = [
        list(value) if isinstance(value := getattr(driver, name), list) else value for name in ATTRIBUTES
    ]
    own = driver.adapters
    return [*values, *own._dumpers.values(), *own._dumpers_by_oid, *own._loaders, own.types._registry]


def altered(connection):
    """Whether its session may differ from what it was after the login. True for what is not watched."""
    driver = connection.connection
    return getattr(driver, "altered", True) or attributes(driver) != driver.as_opened
