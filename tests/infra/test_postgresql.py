import json
import os
import re
import subprocess

import pytest
from infra.tools import BIN, ROOT, inventory_of, play

pytestmark = pytest.mark.hosts("database")
EVIDENCE = ["postgresql@*"]


def ask(host, statement, database="postgres"):
    return host.check_output("runuser -u postgres -- psql -AtX -d %s -c %s", database, statement)


# What the application can do with the login it has, directly and through PgBouncer.
TRY = """
import json, os, sys
from urllib.parse import urlsplit, urlunsplit
import psycopg

def login(**changes):
    return psycopg.connect(psycopg.conninfo.make_conninfo(os.environ[URL], **changes), connect_timeout=5)

def outcome(statement, **changes):
    try:
        with login(**changes) as connection:
            return str(connection.execute(statement).fetchone()[0])
    except psycopg.Error as error:
        return f"{type(error).__name__}: {error}"

print(json.dumps({name: outcome(statement, **changes) for name, (statement, changes) in TRIES.items()}))
"""


def tries(probe, url, **attempts):
    return probe(f"URL = {url!r}\nTRIES = {attempts!r}\n" + TRY)


def test_passwords_are_stored_as_scram_alone(host):
    """Who reads the catalogue or a backup learns no password."""
    stored = ask(
        host, "SELECT rolname || ' ' || left(rolpassword, 14) FROM pg_authid WHERE rolpassword IS NOT NULL"
    )
    assert stored
    assert all(line.endswith(" SCRAM-SHA-256$") for line in stored.splitlines()), stored


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("password_encryption", "scram-sha-256"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
    ],
)
def test_the_cluster_keeps_what_it_was_given(host, setting, value):
    """A torn page is found, every language fits, and a commit that was acknowledged is on disk."""
    assert ask(host, f"SHOW {setting}") == value


def test_it_listens_as_set(host, settings):
    assert ask(host, "SHOW listen_addresses") == settings["postgresql_listen_addresses"]
    assert ask(host, "SHOW max_connections") == str(settings["postgresql_max_connections"])


def test_the_applications_role_has_no_rights_beyond_its_database(host, settings):
    rights = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
    for role in (settings["database_user"], "pgbouncer"):
        assert ask(host, f"SELECT {rights} FROM pg_roles WHERE rolname = '{role}'") == "f|f|f|f|f"  # noqa: S608
    memberships = ask(
        host,
        f"SELECT count(*) FROM pg_auth_members WHERE member = '{settings['database_user']}'::regrole",  # noqa: S608
    )
    assert memberships == "0"


def test_the_application_cannot_rise(probe):
    """Each of these is a known way from SQL to more than the database."""
    found = tries(
        probe,
        "DATABASE_DIRECT_URL",
        works=("SELECT 1", {}),
        superuser=("ALTER ROLE CURRENT_USER SUPERUSER", {}),
        another=("SET ROLE postgres", {}),
        command=("COPY (SELECT 1) TO PROGRAM 'id'", {}),
        file=("SELECT pg_read_file('/etc/passwd')", {}),
        passwords=("SELECT count(*) FROM pg_authid", {}),
        lookup=("SELECT count(*) FROM pg_shadow", {}),
    )
    assert found.pop("works") == "1"
    assert {name: said.split(":")[0] for name, said in found.items()} == dict.fromkeys(
        found, "InsufficientPrivilege"
    )


@pytest.mark.parametrize("url", ["DATABASE_URL", "DATABASE_DIRECT_URL"])
def test_a_wrong_login_is_refused(probe, url, settings):
    """Through PgBouncer and past it alike."""
    found = tries(
        probe,
        url,
        works=("SELECT current_user", {}),
        password=("SELECT 1", {"password": "wrong"}),
        nobody=("SELECT 1", {"user": "nobody"}),
        superuser=("SELECT 1", {"user": "postgres"}),
        pgbouncer=("SELECT 1", {"user": "pgbouncer"}),
        database=("SELECT 1", {"dbname": "postgres"}),
    )
    assert found.pop("works") == settings["database_user"]
    assert all(said.startswith("OperationalError") for said in found.values()), json.dumps(found, indent=1)


@pytest.mark.parametrize("user", ["app", "www-data", "nobody"])
def test_no_other_user_of_the_host_gets_in_by_its_name(host, settings, user):
    """PostgreSQL's socket is open to all; who may pass is decided by pg_hba.conf."""
    user = settings["app_user"] if user == "app" else user
    for role, database in (
        ("postgres", "postgres"),
        ("pgbouncer", "postgres"),
        (settings["database_user"], "app"),
    ):
        tried = host.run("runuser -u %s -- psql -w -AtX -U %s -d %s -c 'SELECT 1'", user, role, database)
        assert tried.rc != 0, f"{user} is in as {role}"
        assert "authentication failed" in tried.stderr or "no password supplied" in tried.stderr, tried.stderr


def test_pgbouncer_can_look_up_a_key_and_read_no_table_of_keys(host, settings):
    def as_pgbouncer(statement):
        return host.run("runuser -u pgbouncer -- psql -AtX -d postgres -c %s", statement)

    assert as_pgbouncer("SELECT count(*) FROM pg_authid").stderr.startswith("ERROR:  permission denied")
    found = as_pgbouncer(f"SELECT left(passwd, 14) FROM pgbouncer.user_lookup('{settings['database_user']}')")  # noqa: S608
    assert found.stdout.strip() == "SCRAM-SHA-256$", found.stderr
    assert as_pgbouncer("SELECT count(*) FROM pgbouncer.user_lookup('postgres')").stdout.strip() == "0"
    elsewhere = host.run("runuser -u pgbouncer -- psql -AtX -d %s -c 'SELECT 1'", settings["database_name"])
    assert "no pg_hba.conf entry" in elsewhere.stderr


def test_nobody_but_the_application_and_postgres_may_connect_to_its_database(host, settings):
    access = ask(host, f"SELECT datacl FROM pg_database WHERE datname = '{settings['database_name']}'")  # noqa: S608
    grantees = {entry.split("=")[0] for entry in access.strip("{}").split(",")}
    assert grantees == {settings["database_user"]}


LIMITS = """
import json, os
import psycopg

NAMES = ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout", "temp_file_limit")

def shown(url):
    with psycopg.connect(os.environ[url], autocommit=True) as one:
        return [one.execute(f"SHOW {name}").fetchone()[0] for name in NAMES]

print(json.dumps({url: shown(url) for url in ("DATABASE_URL", "DATABASE_DIRECT_URL")}))
"""


@pytest.mark.hosts("web")
def test_the_applications_user_has_limits(probe, settings):
    """Through PgBouncer all of them; directly a migration may take its time."""
    found = probe(LIMITS)
    timeouts = [settings["database_statement_timeout"], settings["database_transaction_timeout"]]
    others = [
        settings["database_idle_transaction_timeout"].replace("60s", "1min"),
        settings["database_temporary_files"],
    ]
    assert found["DATABASE_URL"] == [*timeouts, *others]
    assert found["DATABASE_DIRECT_URL"] == ["0", "0", *others]


def test_the_applications_user_leaves_connections_for_people(host, settings):
    said = ask(host, "SELECT rolname, rolconnlimit FROM pg_roles WHERE rolcanlogin")
    limits = dict(line.split("|") for line in said.splitlines())
    assert int(limits[settings["database_user"]]) == settings["postgresql_max_connections"] - 10


def test_the_log_names_the_user_and_the_database_of_each_connection(host):
    ask(host, "SELECT 1")
    said = host.check_output("journalctl --no-pager --output=cat --unit='postgresql@*' --lines=50")
    assert re.search(r"postgres@postgres LOG:  connection authorized: user=postgres database=postgres", said)


def test_the_database_has_the_locale_that_is_set(host, settings):
    name = settings["database_name"]
    locale = ask(host, f"SELECT coalesce(datlocale, datcollate) FROM pg_database WHERE datname = '{name}'")  # noqa: S608
    assert locale.lower() == settings["database_locale"].lower()


OTHER = "test_icu"


@pytest.fixture
def role(servers, host, settings):
    """Run a task file of the role for another database than the site's."""

    def run(tasks, locale):
        told = {
            "postgresql_database": OTHER,
            "postgresql_locale": locale,
            "secrets_values": "{{ lookup('ansible.builtin.file', secrets_file) | from_yaml }}",
            "preflight_packages": ["python3-psycopg2"],
        }
        command = [BIN / "ansible", "-i", inventory_of(servers), settings["inventory_hostname"], "--become"]
        command += ["-m", "include_role", "-a", f"name=postgresql tasks_from={tasks}", "-e", json.dumps(told)]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    yield run
    ask(host, f"DROP DATABASE IF EXISTS {OTHER}")


@pytest.mark.disruptive
def test_a_database_of_an_icu_locale_sorts_as_people_do_and_keeps_its_locale(host, role):
    for tasks in ("preflight_host", "database"):
        refused = role(tasks, "de_DE.UTF-8")
        assert "which only an existing database may have" in " ".join(refused.stdout.split())
        assert "CHANGED" not in refused.stdout
    made = role("database", "en")
    assert made.returncode == 0, made.stdout + made.stderr
    words = "unnest('{Eve,Zoe,anna,zebra,Änne}'::text[]) w"
    assert ask(host, f"SELECT string_agg(w, ' ' ORDER BY w) FROM {words}", OTHER) == "anna Änne Eve zebra Zoe"  # noqa: S608
    again = role("database", "en")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "CHANGED" not in again.stdout
    for tasks in ("preflight_host", "database"):
        other = role(tasks, "ko-KR")
        assert other.returncode != 0
        assert "CHANGED" not in other.stdout
        said = f"database_locale is ko-KR, and the database {OTHER} was made with en, which is never changed"
        assert said in " ".join(other.stdout.split())


@pytest.mark.disruptive
@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("database_locale", "ko-KR", "database_locale is ko-KR, and the database app was made with C.UTF-8"),
        pytest.param(
            "database_parameters",
            {"lock_timeout": "soon"},
            'PostgreSQL refuses, so correct it: invalid value for parameter "lock_timeout": "soon"',
            marks=pytest.mark.full,
        ),
    ],
    ids=["locale", "parameter"],
)
def test_a_converge_refuses_what_this_postgresql_cannot_have_and_changes_nothing(
    servers, setting, value, says
):
    done = play(inventory_of(servers), "site", arguments=["-e", json.dumps({setting: value})])
    assert done.returncode != 0
    assert set(done.changed.values()) == {0}, done.stdout
    assert says in " ".join(done.stdout.split()), done.stdout
