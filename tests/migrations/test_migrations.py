"""The linter and the migrating of pergola_runtime, on a project that a test writes and a real PostgreSQL."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from app.servers import PATIENCE, ROOT
from migrations import postgres
from pergola_runtime import linter
from waiting import wait_until

SETTINGS = """\
import os
SECRET_KEY = "test"
INSTALLED_APPS = ["shop"]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql", "HOST": os.environ["TEST_HOST"], "USER": "test",
    "NAME": os.environ["TEST_NAME"],
}} if "TEST_HOST" in os.environ else {}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
MIGRATION = """\
import uuid
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently, ValidateConstraint
from django.db import migrations, models
from django.db.models.functions import Now, Random
from django.db.migrations import (
    AddConstraint, AddField, AddIndex, AlterField, AlterUniqueTogether, CreateModel, DeleteModel, RemoveField,
    RenameField, RenameModel, RunPython, RunSQL, SeparateDatabaseAndState,
)
def key():
    return models.BigAutoField(primary_key=True)
class Migration(migrations.Migration):
    atomic = {atomic}
    dependencies = {dependencies}
    operations = [{operations}]
"""
FIRST = """
    CreateModel("Shelf", [("id", key()), ("label", models.CharField(max_length=10))]),
    CreateModel("Gone", [("id", key())]),
    CreateModel("Book", [
        ("id", key()),
        ("shelves", models.ManyToManyField("shop.Shelf")),
        ("title", models.CharField(max_length=10)),
        ("pages", models.IntegerField()),
        ("copies", models.IntegerField(db_default=1)),
        ("note", models.TextField(null=True)),
        ("rating", models.IntegerField(null=True)),
        ("price", models.DecimalField(max_digits=5, decimal_places=2)),
        ("day", models.DateField(null=True)),
    ]),
"""


class Project:
    def __init__(self, folder, host, name):
        self.folder, self.host, self.name, self.count = folder, host, name, 0
        self.package = folder / "shop/migrations"
        self.package.mkdir(parents=True)
        for empty in (self.package / "__init__.py", folder / "shop/__init__.py"):
            empty.write_text("")
        (folder / "project.py").write_text(SETTINGS)
        self.add(FIRST)

    def add(self, operations, atomic=True, name="step"):
        """A migration behind those that are there."""
        before = sorted(path.stem for path in self.package.glob("0*.py"))[-1:]
        self.count += 1
        text = MIGRATION.format(
            operations=operations, atomic=atomic, dependencies=[("shop", one) for one in before]
        )
        (self.package / f"{self.count:04d}_{name}.py").write_text(text)

    def start(self, *arguments):
        database = {"TEST_HOST": self.host, "TEST_NAME": self.name} if self.host else {}
        return subprocess.Popen(
            [sys.executable, "-m", "pergola_runtime.migrations", *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT / "runtime/src"),
                "DJANGO_SETTINGS_MODULE": "project",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            | database,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments):
        """Whether it ended well, and what it said."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=3 * PATIENCE)
        return process.returncode == 0, said

    def connect(self):
        return postgres.connect(self.host, self.name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    postgres.install(tmp_path_factory.getbasetemp().parent / "apt.lock")
    with postgres.running() as host:
        yield host


@pytest.fixture(scope="module")
def template(server, tmp_path_factory):
    """A database in which the first release was migrated, by the program under test."""
    first = Project(tmp_path_factory.mktemp("first"), server, "first")
    with postgres.connect(server) as admin:
        admin.execute("CREATE DATABASE first")
    well, said = first.run("apply")
    assert well, said
    assert "Applying shop.0001_step... OK" in said
    return "first"


@pytest.fixture
def project(server, template, tmp_path, request):
    name = f"p{abs(hash(request.node.name))}"
    with postgres.connect(server) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return Project(tmp_path, server, name)


@contextmanager
def locked(project, table="shop_book"):
    """Somebody who holds a table, as a forgotten session does."""
    with project.connect() as holder:
        holder.execute("BEGIN")
        holder.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        yield holder


ADD_NOTE = 'AddField("book", "remark", models.TextField(null=True)),'

# operations, what the line says of them (None: nothing), and whether that holds on a small table as well
CASES = {
    "drop": ('RemoveField("book", "note")', "uses the column shop_book.note", True),
    "drop_many_to_many": ('RemoveField("book", "shelves")', "uses the table shop_book_shelves", True),
    "drop_table": ('DeleteModel("Gone")', "uses the table shop_gone", True),
    "rename": ('RenameField("book", "day", "date")', "uses the column shop_book.day by its old name", True),
    "rename_table": ('RenameModel("Shelf", "Rack")', "uses the table shop_shelf by its old name", True),
    "required": (
        'AddField("book", "a1", models.IntegerField(default=0))',
        "does not know shop_book.a1, so that its INSERTs would fail",
        True,
    ),
    "unique_values": (
        'AddField("book", "a2", models.UUIDField(default=uuid.uuid4))',
        "does not know shop_book.a2",
        True,
    ),
    "by_database": ('AddField("book", "a3", models.IntegerField(db_default=0))', None, None),
    "nullable": ('AddField("book", "a4", models.IntegerField(null=True, default=5))', None, None),
    "now": ('AddField("book", "a5", models.DateTimeField(db_default=Now()))', None, None),
    "random": (
        'AddField("book", "a6", models.FloatField(db_default=Random()))',
        "writes each row anew and holds up requests for as long as it works on shop_book (8 kB)",
        False,
    ),
    "foreign_key": (
        'AddField("book", "a7", models.ForeignKey("shop.Book", models.CASCADE, null=True))',
        "building an index without CONCURRENTLY",
        False,
    ),
    "foreign_key_alone": (
        'AddField("book", "a8", models.ForeignKey("shop.Book", models.CASCADE, null=True, db_index=False, '
        'related_name="+"))',
        None,
        None,
    ),
    "not_null": (
        'AlterField("book", "rating", models.IntegerField(default=3))',
        "may write NULL to shop_book.rating",
        True,
    ),
    "not_null_new": (
        'AlterField("book", "a4", models.IntegerField(default=3))',
        "may write NULL to shop_book.a4",
        True,
    ),
    "no_default": (
        'AlterField("book", "copies", models.IntegerField())',
        "leaves the value of shop_book.copies to its default",
        True,
    ),
    "wider": ('AlterField("book", "title", models.CharField(max_length=20))', None, None),
    "text": ('AlterField("book", "title", models.TextField())', None, None),
    "more_digits": (
        'AlterField("book", "price", models.DecimalField(max_digits=8, decimal_places=2))',
        None,
        None,
    ),
    "more_decimals": (
        'AlterField("book", "price", models.DecimalField(max_digits=8, decimal_places=3))',
        "takes shop_book.price for numeric(5,2), not for numeric(8, 3)",
        True,
    ),
    "larger": (
        'AlterField("book", "pages", models.BigIntegerField())',
        "changing shop_book.pages from integer to bigint writes each row anew",
        False,
    ),
    "index": (
        'AddIndex("book", models.Index(fields=["pages"], name="i1"))',
        "an index without CONCURRENTLY",
        False,
    ),
    "index_beside": ('AddIndexConcurrently("book", models.Index(fields=["pages"], name="i2"))', None, None),
    "two_at_once": (
        'AddIndexConcurrently("book", models.Index(fields=["pages"], name="i3")),'
        'AddIndexConcurrently("book", models.Index(fields=["pages"], name="i4"))',
        "can never be repeated",
        True,
    ),
    "unique": (
        'AddConstraint("book", models.UniqueConstraint(fields=["pages"], name="u1"))',
        "the index of a unique constraint",
        False,
    ),
    "unique_together": ('AlterUniqueTogether("book", {("pages", "title")})', "of a unique constraint", False),
    "check": (
        'AddConstraint("book", models.CheckConstraint(condition=models.Q(pages__gt=0), name="c1"))',
        "checking each row against a new constraint",
        False,
    ),
    "check_of_a_column": (
        'AddField("book", "b1", models.PositiveIntegerField(null=True))',
        "checking each row for a new column's CHECK",
        False,
    ),
    "one_to_one": (
        'AddField("book", "b2", models.OneToOneField("shop.Book", models.CASCADE, null=True, '
        'related_name="+"))',
        "the index of a unique constraint",
        False,
    ),
    "check_later": (
        'AddConstraintNotValid("book", models.CheckConstraint(condition=models.Q(pages__gt=0), name="c2"))',
        None,
        None,
    ),
    "validate": ('ValidateConstraint("book", "c2")', None, None),
    "new_table": (
        'CreateModel("New", [("id", key()), ("book", models.ForeignKey("shop.Book", models.CASCADE)), '
        '("n", models.IntegerField(db_index=True))])',
        None,
        None,
    ),
    "new_unique": ('AlterUniqueTogether("new", {("book", "n")})', None, None),
    "new_not_unique": (
        'AlterUniqueTogether("new", set())',
        None,
        None,
    ),  # which Django cannot tell beforehand
    "new_dropped": ('RemoveField("new", "n")', None, None),
    "sql_required": (
        "RunSQL('ALTER TABLE shop_book ADD COLUMN s1 int NOT NULL; -- no; so\\nUPDATE shop_book SET s1 = 1')",
        "does not know shop_book.s1",
        True,
    ),
    "sql_drop": (
        "RunSQL('ALTER TABLE ONLY public.shop_book ALTER rating DROP NOT NULL, DROP rating')",
        "uses the column shop_book.rating",
        True,
    ),
    "sql_concurrently": (
        "RunSQL('CREATE INDEX CONCURRENTLY i5 ON shop_book (pages)')",
        "CONCURRENTLY does not work inside a transaction",
        True,
    ),
    "sql_commit": ("RunSQL('SELECT 1; COMMIT')", "ends the migration's transaction", True),
    "sql_truncate": ("RunSQL('TRUNCATE shop_book CASCADE')", "empties shop_book", True),
    "sql_unknown": (
        "RunSQL('ALTER TABLE shop_book FROB; DROP TABLE shop_book')",
        "cannot read this SQL",
        True,
    ),
    "python_apart": ("RunPython(RunPython.noop)", None, None),
    "python_between": (
        'AddField("book", "a9", models.IntegerField(null=True)), RunPython(RunPython.noop)',
        "alters shop_book, which stays locked while this works",
        False,
    ),
}
BESIDE = ("index_beside", "two_at_once")


def lines_about(name, said):
    return [line for line in said.splitlines() if re.match(rf"refused: shop\.\d+_{name}: ", line)]


def test_a_migration_is_refused_for_what_it_does_to_the_running_release(server, template, tmp_path):
    """All cases as migrations one behind the other: with every table large, and with none."""
    project = Project(tmp_path, server, template)
    for name, (operations, _, _) in CASES.items():
        project.add(operations, name=name, atomic=name not in BESIDE)
    (_, large), (_, small) = project.run("check", "--big-table", "0"), project.run("check")
    wrong = []
    for name, (_, expected, also_small) in CASES.items():
        for said, refused in ((large, expected is not None), (small, bool(also_small))):
            lines = lines_about(name, said)
            if bool(lines) != refused or (refused and not (expected in lines[0] and ". Fix: " in lines[0])):
                wrong.append((name, lines))
    assert not wrong, f"{wrong}\n{large}\n{small}"
    # a statement that cannot be read hides no other
    assert "uses the table shop_book" in lines_about("sql_unknown", small)[1]


def test_what_an_earlier_release_stopped_using_may_be_dropped(project):
    project.add(
        'AlterField("book", "day", models.DateField(null=True)),'
        'SeparateDatabaseAndState(state_operations=[RemoveField("book", "day"), DeleteModel("Gone")])'
    )
    project.add('AlterField("book", "rating", models.IntegerField(null=True))')
    well, said = project.run("apply")
    assert well, said
    project.add("RunSQL('ALTER TABLE shop_book DROP COLUMN day; DROP TABLE shop_gone')")
    well, said = project.run("apply")
    assert well, said


MODELS = """\
from django.db import models
class Book(models.Model):
    day = models.DateField(null=True)
"""


def test_what_counts_is_what_the_running_release_says(project, tmp_path):
    """After a rollback, say, it is older than what was migrated."""
    project.add('SeparateDatabaseAndState(state_operations=[RemoveField("book", "day")])')
    well, said = project.run("apply")
    assert well, said
    running = Project(tmp_path / "running", project.host, project.name)
    (running.folder / "shop/models.py").write_text(MODELS)
    project.add("RunSQL('ALTER TABLE shop_book DROP COLUMN day')")
    asked = "check", "--running", sys.executable, running.folder
    well, said = project.run(*asked)
    assert not well
    assert "the running release uses the column shop_book.day" in said
    (running.folder / "shop/models.py").write_text(MODELS.replace("day", "night"))
    well, said = project.run(*asked)
    assert well, said
    (running.folder / "shop/models.py").write_text("import nothing_of_that_name")
    well, said = project.run(*asked)
    assert well, said
    assert "does not say what it uses (CalledProcessError): what was migrated counts" in said


def test_not_null_is_allowed_where_a_constraint_shows_that_nobody_writes_null(project):
    with project.connect() as database:
        database.execute("ALTER TABLE shop_book ADD CONSTRAINT c CHECK (rating IS NOT NULL)")
    project.add("RunSQL('ALTER TABLE shop_book ALTER rating SET NOT NULL')")
    well, said = project.run("check", "--big-table", "0")
    assert well, said


def test_a_refused_migration_changes_nothing_unless_one_insists(project):
    project.add(ADD_NOTE)
    project.add('RemoveField("book", "note")')
    well, said = project.run("apply")
    assert not well
    assert "nothing was changed. To insist: --allow-unsafe" in said
    assert "Applying" not in said
    well, said = project.run("apply", "--allow-unsafe")
    assert well, said
    assert "allowed: shop.0003_step: " in said


def test_a_lock_that_is_not_to_be_had_is_asked_for_again(project):
    project.add(ADD_NOTE)
    with locked(project) as holder:
        pid = holder.info.backend_pid
        process = project.start("apply", "--lock-timeout", "0.1")
        first = next(line for line in process.stdout if line.startswith("attempt"))
        holder.execute("COMMIT")
        rest, _ = process.communicate(timeout=PATIENCE)
    assert first.startswith(f"attempt 1 of 10: a table was locked; the longest transaction: pid {pid},")
    assert process.returncode == 0, rest


def test_it_gives_up_in_one_line(project):
    project.add(ADD_NOTE)
    with locked(project):
        well, said = project.run("apply", "--lock-timeout", "0.1", "--attempts", "1")
    assert not well
    assert "gave up after 1 attempts" in said.splitlines()[-1]


def test_a_second_deploy_is_told_who_migrates_since_when(project):
    project.add(ADD_NOTE)
    with locked(project):
        first = project.start("apply", "--lock-timeout", "30", "--name", "release 1 from here")
        wait_until(
            lambda: any("ALTER TABLE" in query for _, _, query in sessions(project)), "the first to wait"
        )
        well, said = project.run("apply", "--name", "release 2")
    assert not well
    assert re.search(
        r"another deploy is migrating: release 1 from here, since \d{4}-\d\d-\d\d \d\d:\d\d", said
    )
    rest, _ = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, rest


def sessions(project):
    with postgres.connect(project.host) as admin:
        return admin.execute(
            "SELECT pid, application_name, query FROM pg_stat_activity WHERE datname = %s", [project.name]
        ).fetchall()


@pytest.mark.parametrize("ended", ["by its time limit", "by a kill"])
def test_what_is_cut_off_leaves_no_lock_and_is_done_again(project, ended):
    project.add(ADD_NOTE + "RunSQL('SELECT pg_sleep(60)')")
    limit = "2" if ended == "by its time limit" else "600"
    process = project.start("apply", "--time-limit", limit)
    if ended == "by a kill":
        wait_until(
            lambda: any("pg_sleep" in query for _, _, query in sessions(project)), "the migration to begin"
        )
        process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    if ended == "by its time limit":
        assert "not done within 2 s; what was under way is undone" in said
    wait_until(lambda: not sessions(project), "PostgreSQL to end the sessions of the process that ended")
    (project.package / "0002_step.py").unlink()
    project.count -= 1
    project.add(ADD_NOTE)
    well, said = project.run("apply")
    assert well, said


def test_an_index_that_was_left_unfinished_is_built_anew(project):
    with project.connect() as database:
        database.execute("INSERT INTO shop_shelf (label) VALUES ('a'), ('a')")
        with pytest.raises(Exception, match="could not create unique index"):
            database.execute("CREATE UNIQUE INDEX CONCURRENTLY half ON shop_shelf (label)")
        database.execute("DELETE FROM shop_shelf")
    project.add('AddIndexConcurrently("shelf", models.Index(fields=["label"], name="half"))', atomic=False)
    with locked(project, "shop_shelf") as holder:
        holder.execute(
            "INSERT INTO shop_shelf (label) VALUES ('b')"
        )  # which a build waits for, without a limit
        process = project.start("apply", "--lock-timeout", "0.1")
        wait_until(
            lambda: any("INDEX CONCURRENTLY" in query for _, _, query in sessions(project)),
            "the build to begin",
        )
        holder.execute("COMMIT")
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "dropping half, which an earlier attempt left unfinished" in said
    assert "attempt" not in said.replace("an earlier attempt", "")


def test_an_application_without_a_database_is_none_of_its_business(tmp_path):
    well, said = Project(tmp_path, None, None).run("apply")
    assert well, said
    assert said == "there is no database to migrate\n"


@pytest.mark.parametrize(
    ("old", "new", "how"),
    [
        ("character varying(10)", "varchar(10)", "as it is"),
        ("character varying(10)", "varchar(9)", None),
        ("character varying", "varchar(9)", None),
        ("numeric(5,2)", "numeric", "as it is"),
        ("numeric(5,2)", "numeric(4, 2)", None),
        ("smallint", "integer", "rewrite"),
        ("bigint", "integer", None),
        ("text", "jsonb", None),
    ],
)
def test_a_change_of_type_is_known_for_what_it_is(old, new, how):
    assert linter.widening(old, new) == how
