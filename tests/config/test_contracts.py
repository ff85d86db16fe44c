"""Each setting once, each file from one place: what keeps the house from drifting."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from house import ANSIBLE, INFRA, ROLES, ROOT, SERVER_FILES, TEMPLATES, options, read_yaml

from pergola.environments import REQUIRED


@pytest.mark.parametrize("role", ROLES)
def test_a_spec_states_no_default(role):
    """Ansible never applies it, so it would drift from group_vars/all."""
    specs = options(role) | options(role, "settings")
    assert not [name for name, spec in specs.items() if "default" in spec]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_says_what_it_is_in_a_few_lines(role):
    lines = (ANSIBLE / f"roles/{role}/README.md").read_text().splitlines()
    assert lines[0] == f"# {role}"
    assert len(lines) <= 10


def named_files(role):
    """The paths under infra/ that a role installs; a directory's ends with a slash."""
    text = "\n".join(path.read_text() for path in (ANSIBLE / "roles" / role).rglob("*.yml"))
    return set(re.findall(r"(?<![\w/.@-])[\w@.-]+(?:/[\w@.-]+)*/?", re.sub(r"#.*", "", text)))


def test_every_file_is_installed_by_exactly_one_role():
    names = {role: named_files(role) for role in ROLES}

    def installs(role, path):
        return path in names[role] or any(f"{parent}/" in names[role] for parent in Path(path).parents)

    files = [str(file.relative_to(INFRA)).removesuffix(".j2") for file in SERVER_FILES]
    roles = {path: [role for role in ROLES if installs(role, path)] for path in files}
    assert {path: found for path, found in roles.items() if len(found) != 1} == {}


def test_programs_are_no_templates():
    """A linter and a unit test read them as they are."""
    assert [
        path for path in SERVER_FILES if path.suffix == ".j2" and "usr" in path.relative_to(INFRA).parts
    ] == []


def test_yaml_holds_no_long_shell():
    """At most three lines: longer ones are programs of their own, which linters and tests can read."""
    for path in ANSIBLE.rglob("*.yml"):
        for block in re.findall(
            r"^( +)(?:cmd|ansible\.builtin\.(?:shell|raw)): [|>]-?\n((?:\1 +.*\n|\n)+)",
            path.read_text(),
            re.M,
        ):
            assert len(block[1].strip().splitlines()) <= 3, path


def test_no_two_roles_have_a_handler_of_one_name():
    """In one play the last one of a name would run for both, and out of order."""
    names = [
        handler["name"]
        for role in ROLES
        for handler in read_yaml(ANSIBLE / f"roles/{role}/handlers/main.yml") or []
    ]
    assert sorted(names) == sorted(set(names))


def test_the_map_names_every_folder():
    map_of_folders = (INFRA / "README.md").read_text().partition("## ")[0]
    folders = {path.name for path in INFRA.iterdir() if path.is_dir()}
    assert {name for name in folders if f"`{name}/`" not in map_of_folders} == set()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(INFRA)))
def test_a_template_is_short_and_says_who_wrote_it(template):
    text = template.read_text()
    assert len(text.splitlines()) <= 80
    if template.name not in ("users.acl.j2", "page.json.j2", "appctl.json.j2"):  # where no comment can stand
        assert "{{ ansible_managed | comment" in "\n".join(text.splitlines()[:2])


def test_the_application_is_told_every_variable_that_it_requires(server):
    """Names in config/env.py and names in the rendered environment file and unit are the same."""
    from config.env import VARIABLES

    told = set(re.findall(r"^([A-Z_]+)=", (server / "etc/app/app.env").read_text(), re.M)) - {
        "GREETING",
        "NUMBER",
    }
    # what each release has of its own
    told |= {"STATIC_ROOT"} & set(
        re.findall(
            r"^Environment=([A-Z_]+)=", (server / "etc/systemd/system/app-web@.service").read_text(), re.M
        )
    )
    # the sample's own and their defaults stand in env.py alone, as infra knows none of an application's
    own = {"DEBUG", "UPSTREAMS_SOCKET", "LAB_ASGI_SOCKET", "LAB_WSGI_SOCKET"}
    # what pergola_runtime reads itself, the next test's
    assert {name for name in told if not name.startswith("PERGOLA_")} == {
        name for name in set(VARIABLES) - own if not name.startswith("PERGOLA_")
    }


def test_the_runtime_is_told_what_it_reads(server):
    """A name with a typing error would be a setting without effect."""
    files = [server / "etc/app/app.env", server / "etc/systemd/system/app-web@.service"]
    text = "\n".join(path.read_text() for path in files)
    told = re.findall(r"^(?:Environment=)?(PERGOLA_\w+)=", text, re.M)
    sources = [*(ROOT / "runtime/src").rglob("*.py"), ROOT / "app/config/env.py"]
    text = "\n".join(path.read_text() for path in sources)
    assert set(told) == set(re.findall(r"\"(PERGOLA_\w+)\"", text))


# What the runtime imports only where the application has it, and what Django and Daphne bring.
OF_OTHERS = {"celery", "django_redis", "sqlparse", "twisted"}


def test_the_runtime_declares_what_it_imports():
    project = tomllib.loads((ROOT / "runtime/pyproject.toml").read_text())["project"]
    declared = sum(project["optional-dependencies"].values(), project["dependencies"])
    declared = {re.match(r"[\w-]+", requirement)[0].replace("-", "_") for requirement in declared}
    imported = set()
    for path in (ROOT / "runtime/src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    assert imported - declared - set(sys.stdlib_module_names) == OF_OTHERS | {"pergola_runtime"}


def test_each_difference_from_djangos_handler_has_its_test():
    page = (ROOT / "runtime/README.md").read_text().partition("### What differs")[2].partition("\n#")[0]
    rows = [line for line in page.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 5
    for row in rows:
        tests = re.findall(r"`(test_\w+\.py)::(\w+)`", row)
        assert tests, row
        for file, name in tests:
            text = (ROOT / "tests/runtime/host/inside" / file).read_text()
            assert re.search(rf"^(async )?def {name}\(", text, re.M), f"{file} has no {name}"


def test_infra_does_not_know_the_sample():
    """The application is a variable: what names the sample's own modules would break another one."""
    apps = {path.parent.name for path in (ROOT / "app").glob("*/models.py")}
    assert apps
    for path in [*INFRA.rglob("*"), *(ROOT / "runtime").rglob("*.py")]:
        if path.is_file() and path.suffix in {".yml", ".j2", ".py", ".sql"}:
            words = set(re.findall(r"[\w.]+", path.read_text()))
            assert not words & {f"{app}.models" for app in apps}, path
            assert not words & {f"{app}.views" for app in apps}, path


@pytest.mark.parametrize("page", ["README.md", "README.ko.md"])
def test_the_readme_names_targets_and_files_that_exist(page):
    text = (ROOT / page).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) <= targets
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / link).exists(), link


def test_both_readmes_show_the_same_commands():
    def commands(page):
        return [
            line.split("#")[0].strip()
            for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.S)
            for line in block.splitlines()
        ]

    assert commands("README.md") == commands("README.ko.md")


def test_preflight_and_new_env_agree_on_the_groups():
    tasks = read_yaml(ANSIBLE / "roles/preflight/tasks/settings.yml")
    (loop,) = [task["loop"] for task in tasks if task["name"] == "Check that each group has a host"]
    assert loop == [*REQUIRED]
