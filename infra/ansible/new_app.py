"""Write the inventory of a local replica for an application: new_app.py NAME SOURCE

SOURCE is a directory or a git URL (the newest commit is looked at; APP_REVISION=v1.2 names another). What the
application is and wants is looked up in its files, and each setting that is written says where it was found.
What is not found is asked for; without a terminal, one line says which variable to give. A variable of a
setting's name in capitals is an answer given beforehand: make new-app ... APP_HEALTH_PATH=/healthz

Reads files only: nothing of the application is run. An environment that exists is never written over.
"""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

from pergola import requirements as pinned_requirements

HERE = Path(__file__).resolve().parent

URL = re.compile(r"(https?|ssh|git|file)://|[^/]+@[^/]+:")
GROUPS = ("edge", "web", "worker", "database", "redis", "monitoring", "backup")
NAME = re.compile(rf"(?!(?:all|ungrouped|machines|{'|'.join(GROUPS)})$)[a-z][a-z0-9_]*")
ELSEWHERE = {"node_modules", "site-packages", "venv", "env", "__pycache__", "build", "dist"}
SETTINGS_NAME = re.compile(r"""DJANGO_SETTINGS_MODULE["']\s*[],)]?\s*[=,]\s*["']([\w.]+)["']""")
LISTS = ("uv.lock", "poetry.lock", "pyproject.toml", "requirements.txt")
LISTS_OF_FOLDER = ("production.txt", "prod.txt", "app.txt", "base.txt", "requirements.txt", "common.txt")
HEALTH = re.compile(
    r"/?(readyz?|readiness|healthz?|health[-_]?checks?|livez|up|ping|status|ht)/?", re.IGNORECASE
)


def refuse(text):
    sys.exit(f"new-app: {text}")


def files(folder, pattern="*.py", depth=6):
    """Files of the application itself, those near the top first."""
    found = [
        path
        for path in folder.rglob(pattern)
        if len(parts := path.relative_to(folder).parts) <= depth
        and not any(part.startswith(".") or part in ELSEWHERE for part in parts)
    ]
    return sorted(found, key=lambda path: (len(path.parts), path))


def of_tests(path, folder):
    return any(part.startswith("test") for part in path.relative_to(folder).parts)


def text_of(path):
    return path.read_text(encoding="utf-8", errors="replace")


def tree_of(path):
    try:
        return ast.parse(text_of(path))
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def name_of(node):
    """path of path(...), Celery of celery.Celery(...)"""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


class Application:
    """What stands in a source, read from its files."""

    def __init__(self, root):
        self.root = root
        self.folder = root

    def short(self, path):
        return str(path.relative_to(self.root))

    def module_file(self, module):
        """The file of a module that `python manage.py` would find."""
        path = self.folder.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
        return None

    def module_of(self, path):
        parts = path.relative_to(self.folder).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    # --- one method for each setting: (value, where it was found), or None

    def app_directory(self):
        found = [path for path in files(self.root, "manage.py") if "django" in text_of(path)]
        serious = [path for path in found if not of_tests(path, self.root)] or found
        nearest = [path for path in serious if len(path.parts) == len(serious[0].parts)]
        if len(nearest) != 1:
            return None
        folder = self.short(nearest[0].parent)
        return folder, f"{self.short(nearest[0])} stands there"

    def app_settings_module(self):
        # a manage.py often names a developer's own
        servers = [*files(self.folder, "asgi.py"), *files(self.folder, "wsgi.py")]
        for path in [*servers, *files(self.folder, "manage.py"), *files(self.folder, depth=3)]:
            named = SETTINGS_NAME.search(text_of(path))
            if named and not of_tests(path, self.folder) and self.module_file(named[1]):
                return named[1], self.short(path)
        return None

    def read_settings(self, module):
        """Names and values of a settings module and of those that it takes over by `import *`."""
        self.settings, self.settings_text, waiting, seen = {}, "", [module], set()
        while waiting:
            name = waiting.pop(0)
            path = self.module_file(name)
            if name in seen or path is None:
                continue
            seen.add(name)
            self.settings_text += text_of(path)
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            for node in ast.walk(tree_of(path)):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    self.settings.setdefault(node.targets[0].id, node.value)
                elif isinstance(node, ast.ImportFrom):
                    up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                    waiting.append(".".join([*up, *([node.module] if node.module else [])]))
        return bool(seen)

    def setting(self, name):
        return literal(self.settings[name]) if name in self.settings else None

    def app_settings_overlay(self):
        text = self.settings_text
        database = re.search(r"DATABASE_URL|env\.db\(|\.db_url\(", text)
        key = re.search(r"""(environ|getenv|env|config|read)\W[^\n]{0,40}SECRET_KEY""", text)
        if database and key:
            return False, "the settings read DATABASE_URL and SECRET_KEY from the environment"
        return True, "the settings do not read DATABASE_URL and SECRET_KEY from the environment"

    def app_asgi(self):
        named = self.setting("ASGI_APPLICATION")
        if isinstance(named, str) and self.module_file(named.rpartition(".")[0]):
            return ":".join(named.rpartition(".")[::2]), "ASGI_APPLICATION"
        for path in files(self.folder, "asgi.py"):
            if not of_tests(path, self.folder) and re.search(r"^application\b", text_of(path), re.MULTILINE):
                return f"{self.module_of(path)}:application", self.short(path)
        return "", "there is no asgi.py: Django's own"

    def app_websocket_path(self):
        speakers = [path for path in files(self.folder) if "ProtocolTypeRouter" in text_of(path)]
        speakers = [path for path in speakers if not of_tests(path, self.folder)]
        if not speakers:
            return "", "nothing here speaks WebSockets (no ProtocolTypeRouter)"
        routed = {}
        for path in files(self.folder):
            if "as_asgi" in text_of(path) and not of_tests(path, self.folder):
                for node in ast.walk(tree_of(path)):
                    if (
                        isinstance(node, ast.Call)
                        and name_of(node) in ("path", "re_path")
                        and "as_asgi" in ast.dump(node)
                    ):
                        routed[literal(node.args[0])] = path
        if not routed or None in routed:
            return None
        firsts = {re.match(r"\^?/?([\w-]*)", route)[1] for route in routed}
        if len(firsts) != 1 or not firsts - {""}:
            return None
        return f"/{firsts.pop()}/", self.short(next(iter(routed.values())))

    def app_requirements(self):
        for folder in dict.fromkeys((self.folder, self.root)):
            for name in LISTS:
                path = folder / name
                if path.is_file() and (name != "pyproject.toml" or self.is_a_list(path)):
                    return self.short(path), "the first of its kind there"
            for name in LISTS_OF_FOLDER:
                if (folder / "requirements" / name).is_file():
                    return self.short(folder / "requirements" / name), "the first of its kind there"
            for name, fix in pinned_requirements.EXPORTS.items():
                if name != "setup.py" and (folder / name).is_file():
                    refuse(f"{name} is not read: run `{fix}`, and give APP_REQUIREMENTS=requirements.txt")
        return None

    @staticmethod
    def is_a_list(pyproject):
        try:
            return bool(tomllib.loads(text_of(pyproject)).get("project", {}).get("dependencies"))
        except tomllib.TOMLDecodeError:
            return False

    def packages(self, file):
        """The names of packages that the list asks for, in so far as this can be seen without a resolver."""
        path = self.root / file
        pyproject = path.with_name("pyproject.toml")
        if path.suffix != ".txt" and pyproject.is_file():
            return set(pinned_requirements.dependencies(tomllib.loads(text_of(pyproject)))) | (
                set(re.findall(r'^name = "([^"]+)"', text_of(path), re.MULTILINE))
                if path.name == "poetry.lock"
                else set()
            )
        try:
            return {pinned_requirements.name_of(line) for line in pinned_requirements.lines_of(path)}
        except (OSError, pinned_requirements.RefusedError) as error:
            refuse(f"{file}: {error}")

    def app_celery(self, packages):
        found = []
        for path in files(self.folder):
            if of_tests(path, self.folder) or "Celery" not in text_of(path):
                continue
            for node in tree_of(path).body:
                if (
                    isinstance(node, ast.Assign)
                    and isinstance(node.value, ast.Call)
                    and name_of(node.value) == "Celery"
                ):
                    found.append((f"{self.module_of(path)}:{node.targets[0].id}", self.short(path)))
        if not found or "celery" not in packages:
            return (
                "",
                "no Celery application was found" if not found else "the list of packages has no celery",
            )
        return found[0] if len(found) == 1 else None

    def app_static_url(self):
        if "django.contrib.staticfiles" not in self.settings_text:
            return "", "django.contrib.staticfiles is not used"
        named = self.setting("STATIC_URL")
        path = self.path_of(named)
        return (path, f"STATIC_URL is {named!r}") if path else ("/static/", "Django's own STATIC_URL")

    def app_media_url(self):
        path = self.path_of(self.setting("MEDIA_URL"))
        stores = [
            path
            for path in files(self.folder, "models.py")
            if re.search(r"(File|Image)Field\(", text_of(path))
        ]
        if path and stores:
            return (
                path,
                f'MEDIA_URL; {self.short(stores[0])} stores files. "" where not everybody may see them',
            )
        return "", "nothing was found that shows stored files"

    @staticmethod
    def path_of(url):
        if not isinstance(url, str) or not url.strip("/"):
            return None
        path = re.sub(r"^https?://[^/]+", "", url).strip("/")
        return f"/{path}/" if re.fullmatch(r"([\w.-]+/)*[\w.-]+", path) else None

    def app_health_path(self):
        root = self.setting("ROOT_URLCONF")
        path = self.module_file(root) if isinstance(root, str) else None
        if not path:
            return None
        routes = [
            literal(
                node.args[0]
                if node.args
                else next((k.value for k in node.keywords if k.arg == "route"), None)
            )
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call) and name_of(node) in ("path", "re_path", "url")
        ]
        routes = [route.lstrip("^").rstrip("$") for route in routes if isinstance(route, str)]
        order = sorted(
            (route for route in routes if HEALTH.fullmatch(route)), key=lambda one: "read" not in one
        )
        if order:
            return f"/{order[0]}", self.short(path)
        return None

    def guess_of_health(self):
        root = self.setting("ROOT_URLCONF")
        path = self.module_file(root) if isinstance(root, str) else None
        return "/admin/login/" if path and "admin.site.urls" in text_of(path) else "/"


WANTED = {  # in the order in which one needs the other: what it is, and an answer that mostly fits
    "app_directory": ("where manage.py stands in the source", "."),
    "app_settings_module": ("Django's settings module, such as shop.settings", None),
    "app_settings_overlay": (
        "whether pergola_runtime sets what production needs over those settings",
        "true",
    ),
    "app_asgi": ("the ASGI application, such as shop.asgi:application; empty for Django's own", ""),
    "app_websocket_path": ("the URL path of its WebSockets; empty for none", "/ws/"),
    "app_requirements": (
        "the list of its packages: .txt, pyproject.toml or a lock",
        "requirements.txt",
    ),
    "app_celery": ("the Celery application, such as shop.celery:app; empty for none", ""),
    "app_static_url": ("the path of STATIC_URL; empty for no static files", "/static/"),
    "app_media_url": ("the path under which nginx gives stored files out to everybody; empty for none", ""),
    "app_health_path": ("a path that answers 200 when the application can serve", None),
}


def answer(name, found, default):
    """A given answer beats what was found, and what is neither given nor found is asked for."""
    meaning = WANTED[name][0]
    variable = name.upper()
    if variable in os.environ:
        text, where = os.environ[variable], f"given as {variable}"
    elif found:
        return found
    elif sys.stdin.isatty():
        text = input(f"{name}: {meaning}" + (f" [{default}]" if default is not None else "") + ": ").strip()
        text, where = text or default, "as you said"
        if text is None:
            refuse(f"{name} is needed: {meaning}")
    else:
        example = f", such as {variable}={default}" if default else ""
        refuse(f"{name} was not found: give {variable}= ({meaning}{example})")
    if name == "app_settings_overlay":
        if text not in ("true", "false"):
            refuse(f"{variable}={text}: write true or false")
        return text == "true", where
    return text, where


def look(application):
    """{setting: (value, where it was found)}"""
    known = {}

    def settle(name, found, default=None):
        known[name] = answer(name, found, default if default is not None else WANTED[name][1])
        return known[name][0]

    directory = settle("app_directory", application.app_directory())
    application.folder = application.root / directory
    if not application.folder.is_dir():
        refuse(f"app_directory: the source has no {directory}")
    module = settle("app_settings_module", application.app_settings_module())
    if not application.read_settings(module):
        refuse(f"app_settings_module: {directory} of the source has no {module}; give APP_SETTINGS_MODULE=")
    settle("app_settings_overlay", application.app_settings_overlay())
    settle("app_asgi", application.app_asgi())
    settle("app_websocket_path", application.app_websocket_path())
    requirements = settle("app_requirements", application.app_requirements())
    if not (application.root / requirements).is_file():
        refuse(f"app_requirements: the source has no {requirements}; give APP_REQUIREMENTS=")
    settle("app_celery", application.app_celery(application.packages(requirements)))
    settle("app_static_url", application.app_static_url())
    settle("app_media_url", application.app_media_url())
    settle("app_health_path", application.app_health_path(), application.guess_of_health())
    return known


HOSTS = """\
# A replica on this machine: one machine that does everything. Its address comes from addresses.py, what it is
# from group_vars/local.yml: both are the environment local's.
local:
  children:
    {name}:
{name}:
  hosts:
    app:
"""
SETTINGS = """\
# The application of this environment, as `make new-app` found it. What each setting means: docs/your-app.md;
# all that there are, with their defaults: infra/ansible/group_vars/all/site.yml.
"""


def write(name, source, revision, known):
    folder = HERE / "inventory" / name
    group_vars = folder / "group_vars"
    group_vars.mkdir(parents=True)
    hosts = HOSTS.format(name=name) + "".join(f"{group}:\n  hosts:\n    app:\n" for group in GROUPS)
    (folder / "hosts.yml").write_text(hosts)
    (folder / "addresses.py").symlink_to("../../roles/machines/files/addresses.py")
    (group_vars / "local.yml").symlink_to("../../local/group_vars/local.yml")
    lines = [f"app_source: {json.dumps(source)}"]
    if revision:
        lines.append(f"app_revision: {json.dumps(revision)}")
    lines += [f"# {where}\n{setting}: {json.dumps(value)}" for setting, (value, where) in known.items()]
    (group_vars / f"{name}.yml").write_text(SETTINGS + "\n".join(lines) + "\n")
    return folder


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0],
        epilog="Answers given beforehand: " + ", ".join(name.upper() for name in WANTED) + ", APP_REVISION.",
    )
    parser.add_argument("name", metavar="NAME", help="of the environment: lower case letters, digits and _")
    parser.add_argument("source", metavar="SOURCE", help="a directory, or a git URL")
    asked = parser.parse_args()
    if not NAME.fullmatch(asked.name):
        refuse(
            f"NAME={asked.name!r}: write a name of lower case letters, digits and _, which is no group's name"
        )
    if (HERE / "inventory" / asked.name).exists():
        refuse(
            f"NAME={asked.name}: infra/ansible/inventory/{asked.name}/ is there already: edit it, or choose "
            "another name"
        )
    revision = os.environ.get("APP_REVISION", "")
    with tempfile.TemporaryDirectory() as aside:
        if URL.match(asked.source):
            source, root = asked.source, Path(aside, "source")
            branch = ["--branch", revision] if revision else []
            git = [
                shutil.which("git") or "git",
                "clone",
                "--quiet",
                "--depth",
                "1",
                *branch,
                "--",
                source,
                str(root),
            ]
            done = subprocess.run(git, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                refuse(f"SOURCE={source}: {' '.join(done.stderr.split())}")
        else:
            root = Path(asked.source).expanduser().resolve()
            source = str(root)
            if not asked.source or not root.is_dir():
                refuse(f"SOURCE={asked.source!r}: write a directory, or a git URL")
        known = look(Application(root))
    folder = write(asked.name, source, revision, known)
    print(f"infra/ansible/inventory/{folder.name}/ is written:")
    for line in yaml.safe_dump(
        {name: value for name, (value, _) in known.items()}, sort_keys=False
    ).splitlines():
        print(f"  {line}")
    print(
        f"Read group_vars/{folder.name}.yml there: each value says where it was found. Then:\n"
        f"  make up ENV={folder.name}"
    )


if __name__ == "__main__":
    main()
