"""Which migrations would break the release that runs, or hold up its requests.

squawk (https://squawkhq.com) reads the SQL; it knows PostgreSQL's grammar and locks, and nothing of Django.
What it finds is weighed here against what the database and the running release are:

- What the running release uses are its models: it is asked for them. So a column that its code no longer has
  may be dropped. Where nobody answers, the models are taken that the applied migrations describe; they are
  another release's after a rollback, and after a deploy that migrated and came no further.
- A lock is only as long as the table is large: below `big` bytes an index is built before anybody notices.
- A table that is not there yet is nobody's.
"""

import bisect
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import sqlparse
from django.db.migrations.operations import RunPython
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED

NAME = r'(?:"?\w+"?\.)?(?:"(?P<{0}>[^"]+)"|(?P<{0}_plain>\w+))'
TABLE = re.compile(
    r"(?:(?:ALTER|DROP|TRUNCATE)\s+TABLE|TRUNCATE|INDEX\b[^(]*?\bON|REINDEX\s+TABLE)\s+(?:CONCURRENTLY\s+)?"
    r"(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?" + NAME.format("table"),
    re.IGNORECASE,
)
COLUMN = re.compile(
    r"\b(?P<verb>ADD|DROP|ALTER|RENAME)\s+(?!(?:TABLE|CONSTRAINT|NOT|DEFAULT|IDENTITY|EXPRESSION|TO)\b)"
    r"(?:COLUMN\s+)?(?:IF\s+(?:NOT\s+)?EXISTS\s+)?" + NAME.format("column"),
    re.IGNORECASE,
)
CHECKED = re.compile(r"\bADD\s+COLUMN\b[^;]*?\bCHECK\s*\(", re.IGNORECASE)
CONCURRENTLY = re.compile(r"\b(?:INDEX|REINDEX\b.*|VIEW)\s+CONCURRENTLY\b", re.IGNORECASE)
TYPE = re.compile(r"(?P<base>[a-z][a-z ]*?)\s*(?:\((?P<size>[\d, ]+)\))?", re.IGNORECASE)
INTEGERS = {"smallint": 2, "integer": 4, "int": 4, "bigint": 8}

FIXES = {
    "drop-column": "in this release take the field out of the models alone: make it null=True or give "
    "it a db_default, then SeparateDatabaseAndState(state_operations=[RemoveField(...)]); drop the "
    "column in the next",
    "drop-table": "in this release take the model out of the code alone, "
    "SeparateDatabaseAndState(state_operations=[DeleteModel(...)]); drop the table in the next",
    "rename-column": "keep the column's name with db_column=, or add a field, write both, and drop the old "
    "one in a later release",
    "rename-table": 'keep the table\'s name with Meta.db_table = "..."',
    "required": "give it a db_default=, or make it null=True now and NOT NULL in the next release",
    "not-null": "in this release write the value always, with null=False in the state alone "
    "(SeparateDatabaseAndState); set NOT NULL in the next",
    "not-null-lock": "AddConstraintNotValid with a CHECK (... IS NOT NULL), ValidateConstraint in a "
    "migration of its own, then NOT NULL, which needs no look at the rows any more",
    "type": "add a field of the new type, write both, copy the rows in batches, read the new one in the next "
    "release, and drop the old one after it",
    "index": "AddIndexConcurrently from django.contrib.postgres.operations in a migration with atomic = "
    "False; for a field's own index say db_index=False first",
    "unique": "CREATE UNIQUE INDEX CONCURRENTLY by RunSQL in a migration with atomic = False, then ADD "
    "CONSTRAINT ... UNIQUE USING INDEX, with AddConstraint in its state_operations",
    "not-valid": "AddConstraintNotValid from django.contrib.postgres.operations (a foreign key: RunSQL ... "
    "NOT VALID), then ValidateConstraint in a migration of its own",
    "checked-column": "an IntegerField for a PositiveIntegerField, AddConstraintNotValid, "
    "then ValidateConstraint in a migration of its own",
    "default": "add it with null=True and no default, fill it in batches, and set the default after that",
    "drop": "drop it in the release after the one that stopped using it",
    "atomic": "atomic = False in this migration, and nothing else in it",
    "transaction": "take BEGIN, COMMIT and ROLLBACK out: Django opens and ends the transaction",
    "batches": "delete rows in batches, by a command of its own",
    "unreadable": "look for a mistake; where it is right, look at its locks yourself",
    "split": "put it in a migration of its own",
    "unknown": "bring the migrations before it out in a release of their own",
}

TABLES = """
    SELECT c.relname,
           greatest(pg_table_size(c.oid), (SELECT sum(pg_table_size(relid)) FROM pg_partition_tree(c.oid)))
    FROM pg_class c
    WHERE c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)
          AND c.relnamespace <> 'pg_catalog'::regnamespace
"""
COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), EXISTS (
        SELECT FROM pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.convalidated AND k.conkey = ARRAY[a.attnum]
              AND pg_get_expr(k.conbin, k.conrelid) = format('(%I IS NOT NULL)', a.attname))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)
          AND c.relnamespace <> 'pg_catalog'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
"""


class LinterError(Exception):
    pass


@dataclass
class Step:
    """One operation of one migration, and the SQL that it would run."""

    migration: object
    operation: object
    table: str = ""  # of the operation's model
    statements: list = field(default_factory=list)
    error: Exception | None = None

    @property
    def name(self):
        what = " ".join(self.operation.describe().split())
        return f"{self.migration.app_label}.{self.migration.name}: {what[:100]}"


@dataclass
class Running:
    """What is there now: the tables of the database, and what the running release knows of them."""

    big: int  # bytes from which on a table's lock is felt
    tables: dict = field(default_factory=dict)  # name: bytes
    types: dict = field(default_factory=dict)  # (table, column): type
    never_null: set = field(default_factory=set)  # (table, column) that a valid CHECK keeps from being NULL
    used: dict = field(default_factory=dict)  # table: {column: {"null": bool, "default": bool}}

    def uses(self, table, column=None):
        return table in self.used and (column is None or column in self.used[table])


@dataclass(frozen=True)
class Refusal:
    step: Step
    why: str
    fix: str

    def __str__(self):
        return f"{self.step.name}: {self.why}. Fix: {FIXES[self.fix]}."


def look(connection, executor, big, used):
    """What is there now."""
    running = Running(big)
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
        running.tables = dict(cursor.fetchall())
        cursor.execute(COLUMNS)
        for table, column, kind, never_null in cursor.fetchall():
            running.types[table, column] = kind
            if never_null:
                running.never_null.add((table, column))
    running.used = used_by(applied_state(executor).apps) if used is None else used
    return running


def used_by(apps):
    """The tables and columns of models: {table: {column: whether it may be NULL, and has a default}}."""
    used = {}
    for model in apps.get_models(include_auto_created=True, include_swapped=True):
        columns = used.setdefault(model._meta.db_table, {})
        for item in model._meta.local_concrete_fields:
            columns[item.column] = {"null": item.null, "default": item.db_default is not NOT_PROVIDED}
    return used


def applied_state(executor):
    """The models as the migrations that are applied describe them."""
    loader = executor.loader
    state = ProjectState(real_apps=loader.unmigrated_apps)
    for migration, _ in executor.migration_plan(loader.graph.leaf_nodes(), clean_start=True):
        if (migration.app_label, migration.name) in loader.applied_migrations:
            migration.mutate_state(state, preserve=False)
    return state


def steps_of(connection, executor, plan):
    """Each operation of the plan with its SQL, which nothing runs."""
    state = applied_state(executor)
    state.apps  # noqa: B018  rendered once here, and then kept up to date by each operation
    for migration, _ in plan:
        for operation in migration.operations:
            before = state.clone()
            step = Step(migration, operation, table_of(before, migration.app_label, operation))
            operation.state_forwards(migration.app_label, state)
            if operation.reduces_to_sql:
                try:
                    with connection.schema_editor(collect_sql=True, atomic=False) as editor:
                        operation.database_forwards(migration.app_label, editor, before, state)
                    lines = [sql for sql in editor.collected_sql if not sql.startswith("--")]
                    step.statements = [
                        one for sql in lines for one in sqlparse.split(sql) if one.strip(" ;\n")
                    ]
                except Exception as error:  # of Django, which looks for what an earlier migration would make
                    step.error = error
            yield step


def table_of(state, app_label, operation):
    try:
        return state.apps.get_model(app_label, operation.model_name)._meta.db_table
    except (AttributeError, LookupError):
        return ""


def squawk(text, version, in_transaction):
    program = Path(sys.executable).with_name("squawk")
    program = str(program) if program.exists() else shutil.which("squawk")
    if program is None:
        raise LinterError("squawk is not installed; it comes with pergola-runtime[migrations]")
    rules = [f"--include={rule}" for rule in RULES if rule not in ("syntax-error", "checked-column")]
    command = [program, "--reporter=json", f"--pg-version={version}", *rules]
    command += ["--assume-in-transaction"] if in_transaction else []
    done = subprocess.run(  # noqa: S603
        command,
        input=text,
        cwd="/",  # where no .squawk.toml of a project says otherwise
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    try:
        return json.loads(done.stdout or "[]")
    except ValueError:
        raise LinterError(f"squawk failed: {(done.stderr or done.stdout).strip()}") from None


def size(count):
    return f"{count / 2**20:,.0f} MB" if count >= 2**20 else f"{count / 2**10:,.0f} kB"


class Finding:
    """A line of squawk, with the statement, the table and the column it is about."""

    def __init__(self, step, statement, offset, running):
        self.step, self.statement, self.running = step, statement, running
        table = TABLE.search(statement)
        self.table = table and (table["table"] or table["table_plain"])
        # an ALTER TABLE may hold several actions; the finding is about the one that begins at or before it
        columns = [match for match in COLUMN.finditer(statement) if match.start() <= offset]
        self.column = columns[-1]["column"] or columns[-1]["column_plain"] if columns else None
        self.added = bool(columns) and columns[-1]["verb"].upper() == "ADD"
        self.rest = statement[columns[-1].end() :] if columns else statement
        self.place = f"{self.table}.{self.column}" if self.column else self.table
        self.field = running.used.get(self.table, {}).get(self.column)

    def locks(self, doing, fix):
        found = self.running.tables.get(self.table, -1)
        if found >= self.running.big:
            yield f"{doing} holds up requests for as long as it works on {self.table} ({size(found)})", fix

    def drop_column(self):
        if self.field is not None:
            yield f"the running release uses the column {self.place}", "drop-column"

    def drop_table(self):
        if self.running.uses(self.table):
            yield f"the running release uses the table {self.table}", "drop-table"

    def rename_column(self):
        if self.field is not None:
            yield f"the running release uses the column {self.place} by its old name", "rename-column"

    def rename_table(self):
        if self.running.uses(self.table):
            yield f"the running release uses the table {self.table} by its old name", "rename-table"

    def required(self):
        if self.running.uses(self.table) and self.field is None:
            yield (
                f"the running release does not know {self.place}, so that its INSERTs would fail",
                "required",
            )

    def drop_default(self):
        """Django gives a new column its default for the rows that are there, and takes it away again."""
        if self.field is not None:
            if not self.field["null"] and self.field["default"]:
                yield f"the running release leaves the value of {self.place} to its default", "required"
        elif any(self.adds_required(sql) for sql in self.step.statements):
            yield from self.required()

    def adds_required(self, sql):
        return any(
            match["verb"].upper() == "ADD" and (match["column"] or match["column_plain"]) == self.column
            for match in COLUMN.finditer(sql)
        ) and re.search(r"\bNOT\s+NULL\b", sql, re.IGNORECASE)

    def not_null(self):
        if self.added:
            if not re.search(r"\b(DEFAULT|GENERATED)\b", self.rest, re.IGNORECASE):
                yield from self.required()
        elif (self.table, self.column) in self.running.never_null:
            return
        elif self.running.uses(self.table) and (self.field is None or self.field["null"]):
            yield f"the running release may write NULL to {self.place}", "not-null"
        else:
            yield from self.locks("setting NOT NULL looks at each row and", "not-null-lock")

    def change_type(self):
        old = self.running.types.get((self.table, self.column))
        found = re.search(
            r"\bTYPE\s+(.+?)(?=\s+USING\b|\s+COLLATE\b|\s*,\s*(?:ALTER|ADD|DROP)\b|\s*;|\s*$)", self.rest
        )
        new = found[1] if found else ""
        how = widening(old, new) if old else "as it is"
        if how == "rewrite":
            yield from self.locks(
                f"changing {self.place} from {old} to {new} writes each row anew and", "type"
            )
        elif how is None:
            yield f"the running release takes {self.place} for {old}, not for {new}", "type"

    def index(self):
        yield from self.locks("building an index without CONCURRENTLY", "index")

    def unique(self):
        yield from self.locks("building the index of a unique constraint", "unique")

    def constraint(self):
        yield from self.locks("checking each row against a new constraint", "not-valid")

    def checked_column(self):
        yield from self.locks("checking each row for a new column's CHECK", "checked-column")

    def foreign_key(self):
        # (!) a new column that is NULL everywhere has nothing to check, and PostgreSQL does not look
        if not self.added or re.search(r"\bDEFAULT\s+(?!NULL)", self.rest, re.IGNORECASE):
            yield from self.constraint()

    def volatile_default(self):
        # (!) Django's Now() is the same for all rows of a statement, which squawk does not know
        if re.search(r"\bDEFAULT\s+\(*STATEMENT_TIMESTAMP\(\)", self.rest, re.IGNORECASE):
            return
        yield from self.locks("a default that differs from row to row writes each row anew and", "default")

    def drop(self):
        yield "the running release may use what is dropped here", "drop"

    def empties(self):
        yield (
            f"it empties {self.table} and all that refers to it while the running release uses them",
            "batches",
        )

    def unreadable(self):
        yield "squawk cannot read this SQL, so nobody knows what it does", "unreadable"

    def transaction(self):
        yield "it ends the migration's transaction in its midst", "transaction"


# What squawk calls it, and what it means here. Of several about one statement the first counts.
RULES = {
    "syntax-error": Finding.unreadable,
    "ban-drop-column": Finding.drop_column,
    "ban-drop-table": Finding.drop_table,
    "renaming-column": Finding.rename_column,
    "renaming-table": Finding.rename_table,
    "adding-required-field": Finding.not_null,
    "adding-not-nullable-field": Finding.not_null,
    "ban-drop-default": Finding.drop_default,
    "changing-column-type": Finding.change_type,
    "disallowed-unique-constraint": Finding.unique,
    "adding-foreign-key-constraint": Finding.foreign_key,
    "constraint-missing-not-valid": Finding.constraint,
    "checked-column": Finding.checked_column,  # ours
    "adding-serial-primary-key-field": Finding.volatile_default,
    "adding-field-with-default": Finding.volatile_default,
    "require-concurrent-index-creation": Finding.index,
    "require-concurrent-reindex": Finding.index,
    "ban-drop-view": Finding.drop,
    "ban-drop-schema": Finding.drop,
    "ban-drop-database": Finding.drop,
    "ban-drop-function": Finding.drop,
    "ban-truncate-cascade": Finding.empties,
    "transaction-nesting": Finding.transaction,
}


def parsed(text):
    match = TYPE.fullmatch(text.strip())
    if not match:
        return text, ()
    base = {"varchar": "character varying", "int": "integer", "decimal": "numeric"}.get(
        match["base"].lower(), match["base"].lower()
    )
    return base, tuple(int(number) for number in (match["size"] or "").split(",") if number.strip())


def widening(old, new):
    """'as it is': each old value is a new one and no row is written. 'rewrite': rows are. None: neither."""
    (old, size_before), (new, size_after) = parsed(old), parsed(new)
    if old == new and size_before == size_after:
        return "as it is"
    if old == "character varying" and new in ("character varying", "text"):
        return "as it is" if not size_after or (size_before and size_before <= size_after) else None
    if old == new == "numeric":
        same_scale = size_before[1:] == size_after[1:]
        more = size_before and same_scale and size_before <= size_after
        return "as it is" if not size_after or more else None
    if old in INTEGERS and new in INTEGERS and INTEGERS[old] < INTEGERS[new]:
        return "rewrite"
    return None


def findings(pieces, version, in_transaction):
    """For the number of each statement what squawk says of it: (rule, offset)."""
    text = "".join(pieces)
    starts = list(itertools.accumulate(map(len, pieces), initial=0))
    lines = list(itertools.accumulate(map(len, text.splitlines(keepends=True)), initial=0))
    said = (
        [line for line in squawk(text, version, in_transaction) if line["rule_name"] in RULES] if text else []
    )
    # one statement that it cannot read hides all others
    if len(pieces) > 1 and any(line["rule_name"] == "syntax-error" for line in said):
        return {
            number: found
            for number, piece in enumerate(pieces)
            for found in findings([piece], version, in_transaction).values()
        }
    found = {}
    for line in said:
        offset = lines[line["line"]] + line["column"]
        number = bisect.bisect_right(starts, offset, hi=len(pieces)) - 1
        found.setdefault(number, []).append((line["rule_name"], offset - starts[number]))
    return found


def judge(migration, steps, running, version):
    """The refusals of one migration."""
    pieces = [(step, sql.rstrip().rstrip(";") + ";\n") for step in steps for sql in step.statements]
    found = findings([sql for _, sql in pieces], version, migration.atomic)
    order = list(RULES)
    for number, (step, sql) in enumerate(pieces):
        if migration.atomic and CONCURRENTLY.search(sql):
            yield Refusal(step, "CONCURRENTLY does not work inside a transaction", "atomic")
        rules = found.get(number, []) + [("checked-column", one.start()) for one in CHECKED.finditer(sql)]
        for rule, offset in sorted(rules, key=lambda item: order.index(item[0])):
            refused = [Refusal(step, *item) for item in RULES[rule](Finding(step, sql, offset, running))]
            yield from refused
            if refused:
                break
    yield from judge_whole(migration, steps, running)


def judge_whole(migration, steps, running):
    """What squawk cannot know: Python between the SQL, and what a migration cut off half-way leaves."""
    touched = [table for step in steps for sql in step.statements if (table := altered(sql))]
    big = [table for table in touched if running.tables.get(table, -1) >= running.big]
    working = [step for step in steps if step.statements or isinstance(step.operation, RunPython)]
    for step in steps:
        if isinstance(step.operation, RunPython) and migration.atomic and big:
            why = f"the same transaction alters {big[0]}, which stays locked while this works"
            yield Refusal(step, why, "split")
        if step.error is not None and step.table in running.tables:
            yield Refusal(step, f"its SQL cannot be told beforehand ({step.error})", "unknown")
    if not migration.atomic and len(working) > 1:
        why = "without a transaction, and cut off between its operations, it can never be repeated"
        yield Refusal(working[1], why, "split")


def altered(sql):
    match = re.match(r"\s*ALTER\s+TABLE", sql, re.IGNORECASE) and TABLE.search(sql)
    return match and (match["table"] or match["table_plain"])


def refusals(connection, executor, plan, big, used=None):
    running = look(connection, executor, big, used)
    version = f"{connection.pg_version // 10000}.0"
    if not running.tables:
        return  # the first release of all
    steps = list(steps_of(connection, executor, plan))
    for migration, group in itertools.groupby(steps, key=lambda step: step.migration):
        yield from judge(migration, list(group), running, version)
