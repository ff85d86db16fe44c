"""What the load need not see: a lock of uv's, and a migration that is refused until somebody insists."""

import os
import subprocess
import tomllib

import pytest
from faults.releases import BIN, ROOT, deploy, deploy_checkout
from faults.replica import well
from waiting import wait_until

pytestmark = [pytest.mark.full, pytest.mark.disruptive, pytest.mark.usefixtures("left_well")]


def lock(source):
    """The sample's packages in a pyproject.toml and a uv.lock, in the versions of this checkout's lock."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["app"]
    lines = (ROOT / "requirements/app.txt").read_text().splitlines()
    pins = [line.rstrip(" \\") for line in lines if line[:1].isalnum()]
    project = f"""\
[project]
name = "sample"
version = "1"
requires-python = ">=3.11"
dependencies = {wanted!r}
[tool.uv]
constraint-dependencies = {pins!r}
"""
    (source.root / "pyproject.toml").write_text(project)
    command = [BIN / "uv", "lock", "--quiet", "--directory", source.root]
    subprocess.run(
        command, env=os.environ | {"UV_SYSTEM_CERTS": "true", "UV_PYTHON_DOWNLOADS": "never"}, check=True
    )


def test_a_release_is_built_from_a_lock_of_uv(replica, make_source):
    source = make_source("from a lock of uv")
    lock(source)
    deploy(replica, source, "-e", "app_requirements=pyproject.toml").works()
    assert replica.served() == source.name
    well(replica)


def test_a_migration_that_holds_up_requests_waits_until_somebody_insists(replica, make_source):
    before, source = replica.look(), make_source("a migration to insist on")
    index = 'models.Index(fields=["at"], name="faults_at")'
    source.migration("0002_index", f'migrations.AddIndex("visit", {index})')

    def ask(question):
        database = replica.settings["database_name"]
        return replica.run(f'runuser -u postgres -- psql -At -d {database} -c "{question}"')

    def applied():
        return ask("SELECT count(*) FROM django_migrations WHERE name = '0002_index'")

    def connections(before):
        """Of the application, opened before that moment: what was prepared over them may fail by now."""
        mine = f"usename = '{replica.settings['database_user']}' AND backend_start < '{before}'"
        return ask("SELECT count(*) FROM pg_stat_activity WHERE " + mine)  # noqa: S608  our own values

    refused = deploy(replica, source, "-e", "deploy_big_table_mb=0").wait()
    assert refused.process.returncode != 0, refused.text
    assert "building an index without CONCURRENTLY holds up requests" in refused.said, refused.text
    assert "AddIndexConcurrently" in refused.said, refused.text
    assert applied() == "0"
    assert replica.look()["live"] == before["live"]

    insisting = ("-e", "deploy_big_table_mb=0", "-e", "deploy_allow_unsafe_migrations=true")
    began = ask("SELECT now()")
    assert connections(began) != "0"
    try:
        deploy(replica, source, *insisting).works()
        assert applied() == "1"
        wait_until(lambda: connections(began) == "0", "PgBouncer to open new connections behind a migration")
        assert replica.served() == source.name
    finally:
        # no later rollback goes to a release that wants this migration
        replica.run("app-run --direct python manage.py migrate core 0001_initial --verbosity 0", check=False)
        insisted = replica.look()["live"]
        deploy_checkout(replica).works()
        if insisted != replica.look()["live"]:
            replica.run(f"rm -rf {replica.settings['app_home']}/releases/{insisted}")
