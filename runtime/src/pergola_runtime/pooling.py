"""What a project's DATABASES ask for, and PgBouncer cannot give: refused when the application is loaded.

PgBouncer gives a server connection to another client after each transaction, so that what a client sets for
its session is lost. PERGOLA_POOL_MODE is PgBouncer's pool mode (pgbouncer_pool_mode).
"""

import os
import re

# set a session's search_path or role, and expect it to stay
SESSION_ENGINES = re.compile(
    r"^(django_tenants|tenant_schemas|django_pgschemas|pgschemas|django_pg_tenants)\b"
)


def pooled(databases):
    """The aliases that lead where `default` does: to PgBouncer."""

    def place(alias):
        return [str(databases.get(alias, {}).get(key) or "") for key in ("HOST", "PORT")]

    of_default = place("default")
    return [
        alias for alias in databases if alias == "default" or (all(of_default) and place(alias) == of_default)
    ]


def database_problem(alias, database, environ=os.environ, engines=()):
    """A sentence about what of a database does not work through PgBouncer; empty if all of it works.

    `engines`: further modules to look at, those of which the engine's class inherits.
    """
    options = database.get("OPTIONS", {})
    session = environ.get("PERGOLA_POOL_MODE") == "session"
    where = f"DATABASES[{alias!r}]"
    if found := options.get("options"):
        instead = ", ".join(parameters(found)) or "name: value"
        return (
            f"{where}['OPTIONS']['options'] is {found!r}, and PgBouncer refuses connections with such "
            f"options: set database_parameters to {{{instead}}} instead, or use the alias direct"
        )
    if (role := options.get("assume_role")) and not session:
        return (
            f"{where}['OPTIONS']['assume_role'] is {role!r}, and PgBouncer keeps a role for one transaction: "
            f"set database_parameters to {{role: {role}}} instead, or pgbouncer_pool_mode to session"
        )
    engine = database.get("ENGINE", "")
    if any(map(SESSION_ENGINES.match, [engine, *engines])) and not session:
        return (
            f"{where}['ENGINE'] is {engine!r}, which sets the session's search_path, and PgBouncer keeps it "
            "for one transaction: set pgbouncer_pool_mode to session"
        )
    return ""


def parameters(options):
    """-c a=b -c c=d -> ["a: b", "c: d"]"""
    return [f"{name}: {value}" for name, value in re.findall(r"(?:-c\s*|--)([\w.]+)=(\S+)", options)]
