"""The ledger of the tests: what makes a part stale, which entries count, and that the table is complete."""

import ast
import functools
import json
from datetime import UTC, datetime, timedelta

import pytest
from house import ROOT
from proof import ledger
from proof.digest import base_packages, commit_tree, digest, files_of, git, matches, working_tree
from proof.parts import PARTS, Part

BY_NAME = {part.name: part for part in PARTS}
TESTS = ROOT / "tests"
COMMIT = "a" * 40
FRESH = ("fresh", "fresh-full")
VAGRANT = ("vagrant", "vagrant-libvirt")
TREE = working_tree()


def changed(*names):
    """The parts whose digest is another one once these files have another content."""
    missing = [name for name in names if name not in TREE]
    assert not missing
    other = TREE | dict.fromkeys(names, "100644 0")
    return {part.name for part in PARTS if digest(part, TREE) != digest(part, other)}


def on_machines():
    return {part.name for part in PARTS if part.place != "here"}


@pytest.mark.parametrize(
    ("name", "stale"),
    [
        ("infra/nginx/nginx.conf.j2", on_machines() | {"lint", "config", "pergola"}),
        ("runtime/src/pergola_runtime/lean.py", set(BY_NAME) - {"load"}),
        ("app/posts/views.py", set(BY_NAME) - {"load"}),
        ("pergola/inventory.py", on_machines() | {"lint", "config", "pergola"}),
        ("requirements/control.txt", set(BY_NAME)),
        ("tests/proof/verdict.py", set(BY_NAME)),
        ("runtime/README.md", on_machines() | {"app", "config", "runtime"}),
        (
            "tests/load/clients.py",
            {"lint", "app", "config", "load", "recovery", "releases", "releases-full", "fresh-full"},
        ),
        ("tests/smoke/test_http.py", {"lint", "app", "config", "smoke", "servers", *FRESH, *VAGRANT}),
        (
            "tests/infra/test_ssh.py",
            {"lint", "app", "config", "infra", "infra-full", "recovery", *FRESH, *VAGRANT},
        ),
        ("tests/browser/conftest.py", {"lint", "app", "config", "browser", "fresh-full"}),
        ("Vagrantfile", {*VAGRANT}),
        ("bench/plan.py", {"lint", "config", "bench", "fresh-full"}),
        ("docs/servers.md", {"config", "servers", "fresh-full"}),
        ("docs/async-django.md", {"app", "fresh-full"}),
        ("docs/capacity.md", set()),
        ("CHANGELOG.md", set()),
        ("tests/README.md", set()),
        ("bench/results/2026-11-29.json", set()),
    ],
)
def test_a_change_makes_stale_what_depends_on_it(name, stale):
    assert changed(name) == stale


def test_a_page_that_is_gone_makes_stale_what_checks_links():
    without = {name: content for name, content in TREE.items() if name != "docs/capacity.md"}
    stale = {part.name for part in PARTS if digest(part, TREE) != digest(part, without)}
    assert stale == {"app", "config", "fresh-full"}


def test_other_variables_make_a_part_stale():
    part = BY_NAME["releases"]
    other = Part(**{**vars(part), "variables": {"RELEASES_ROUNDS": "2"}})
    assert digest(part, TREE) != digest(other, TREE)


def test_other_debian_packages_make_stale_what_runs_on_machines():
    stale = {part.name for part in PARTS if digest(part, TREE, "one") != digest(part, TREE, "two")}
    assert stale == on_machines()


def test_the_packages_are_those_of_the_base_image(tmp_path, monkeypatch):
    monkeypatch.setenv("PERGOLA_IMAGES", str(tmp_path))
    assert base_packages() == ""
    status = tmp_path / "debian-13-0123456789ab/var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    entry = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-{}\n\n"
    found = set()
    for revision in (1, 2):
        status.write_text(entry.format(revision))
        found.add(base_packages())
    assert len(found) == 2


def test_the_working_tree_is_read_as_git_reads_it():
    """An unchanged file has the mode and hash that it has in its commit."""
    clean = set(git("ls-files").split("\n")) - set(git("diff", "--name-only", "HEAD").split("\n"))
    head = commit_tree()
    assert len(clean & set(head)) > 100
    assert [name for name in clean & set(head) if TREE.get(name) != head[name]] == []


def test_parts_that_share_a_state_directory_never_run_at_once():
    """They are in one group, or run while nothing else does."""
    for part in PARTS:
        same = [
            one.group for one in PARTS if one.target == part.target and one.place == "own" and not one.alone
        ]
        assert len(set(same)) <= 1, part.name


def test_no_part_depends_on_what_runs_write():
    files = ("tests/ledger.json", "bench/results/2026-11-29.md", "bench/results/x.json")
    assert not [(part.name, name) for part in PARTS for name in files if matches(name, part.files)]


def test_releases_runs_last_in_its_group():
    """tests/faults leaves a replica that is removed afterwards as it is."""
    for part in PARTS:
        if part.target == "test-releases":
            assert [one.name for one in PARTS if one.group == part.group][-1] == part.name


def test_every_directory_of_tests_has_a_part():
    folders = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    covered = {folder for folder in folders for part in PARTS if matches(f"tests/{folder}/x.py", part.files)}
    own = {part.target.removeprefix("test-").replace("-", "_") for part in PARTS}
    own = {"faults" if name == "releases" else name for name in own} | {"appctl"}  # with test-pergola
    assert folders <= covered & own


@functools.cache
def modules(name):
    """The files of tests/ that this one imports."""
    return list(imports(ast.parse((ROOT / name).read_text())))


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for one in names:
            path = f"tests/{one.replace('.', '/')}.py"
            if (ROOT / path).is_file():
                yield path


@pytest.mark.parametrize("part", [part for part in PARTS if part.name != "lint"], ids=lambda part: part.name)
def test_a_part_names_what_its_tests_import(part):
    """The runner sees what a test opens; this sees it also for tests that CI does not run."""
    own = [name for name in files_of(part, TREE) if name.startswith("tests/") and name.endswith(".py")]
    imported = {path for name in own for path in modules(name)}
    # checks.py and verdict.py decide a result, the runner's other files do not
    missing = sorted(path for path in imported - set(own) if not path.startswith("tests/proof/"))
    assert missing == []


# --- the ledger


@pytest.fixture
def entry():
    part = BY_NAME["load"]
    return {
        "digest": digest(part, TREE),
        "packages": "",
        "commit": git("rev-parse", "HEAD").strip(),
        "date": datetime.now(UTC).strftime(ledger.CLOCK),
        "seconds": 10.0,
        "cpu": 12.0,
        "speed": 1.0,
        "passed": 4,
        "failed": 0,
        "verdict": "passed",
        "slowest": [],
    }


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    """As if the working tree were committed, and read once."""
    monkeypatch.setattr(ledger, "commit_tree", lambda _: TREE)
    monkeypatch.setattr(ledger, "working_tree", lambda: TREE)


def state(tmp_path, entry):
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps({"parts": {"load": entry}}))
    return ledger.Ledger(path).state(BY_NAME["load"])


def test_a_part_that_passed_on_these_files_is_proved(tmp_path, entry):
    assert state(tmp_path, entry) == ("proved", "")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"digest": "0" * 64}, "how it is run changed, or files that were not committed then"),
        ({"digest": "zz"}, "digest is malformed"),
        ({"digest": None}, "digest is missing or malformed"),
        ({"commit": COMMIT}, "commit aaaaaaa is no ancestor of HEAD"),
        ({"commit": "main"}, "commit is malformed"),
        ({"date": "yesterday"}, "date is malformed"),
        ({"date": "2026-01-01T00:00:00Z"}, "older than 21 days"),
        ({"date": "2126-01-01T00:00:00Z"}, "its date is in the future"),
        ({"passed": 0}, "it counted no test"),
        ({"passed": True}, "passed is missing or malformed"),
        ({"seconds": "ten"}, "seconds is missing or malformed"),
        ({"speed": None}, "speed is missing or malformed"),
        ({"slowest": [["a", "b", "c"]]}, "slowest is malformed"),
    ],
)
def test_an_entry_that_proves_nothing_is_stale(tmp_path, entry, wrong, reason):
    assert state(tmp_path, entry | wrong) == ("stale", reason)


@pytest.mark.parametrize("wrong", [{"verdict": "failed", "failed": 1}, {"failed": 1}])
def test_a_part_that_failed_is_not_proved(tmp_path, entry, wrong):
    assert state(tmp_path, entry | wrong) == ("failed", "1 of 5")


def test_an_entry_of_twenty_days_counts(tmp_path, entry):
    date = (datetime.now(UTC) - timedelta(days=20)).strftime(ledger.CLOCK)
    assert state(tmp_path, entry | {"date": date}) == ("proved", "")


def test_an_entry_that_is_no_object_is_stale(tmp_path):
    assert state(tmp_path, ["passed"]) == ("stale", "the entry is no object")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"parts": []}', '{"parts": 1}', "{}"])
def test_a_ledger_that_cannot_be_read_proves_nothing(tmp_path, text):
    path = tmp_path / "ledger.json"
    path.write_text(text)
    assert {ledger.Ledger(path).state(part)[0] for part in PARTS} == {"never run"}


def test_a_part_that_names_no_files_is_stale(tmp_path):
    part = Part("load", "test-load", (), "nothing")
    wanted, reason = ledger.Ledger(tmp_path / "none.json").state(part)
    assert wanted == "stale"
    assert reason.startswith("it names no files")


def test_what_changed_since_is_named(tmp_path, entry, monkeypatch):
    other = TREE | {"tests/load/clients.py": "100644 0", "tests/load/tally.py": "100644 0"}
    monkeypatch.setattr(ledger, "working_tree", lambda: other)
    assert state(tmp_path, entry) == ("stale", "tests/load/clients.py and 1 more changed")


def test_a_record_replaces_one_entry_and_keeps_the_others(tmp_path, entry):
    path = tmp_path / "ledger.json"
    ledger.record("load", entry, path)
    ledger.record("app", entry | {"passed": 1000}, path)
    ledger.record("load", entry | {"passed": 5}, path)
    found = json.loads(path.read_text())["parts"]
    assert {name: one["passed"] for name, one in found.items()} == {"app": 1000, "load": 5}
    assert list(tmp_path.iterdir()) == [path]
