"""What a Django project is and needs, read from its files. Nothing of it is imported or run."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

from pergola import requirements

Value = str | bool
Found = tuple[Value, str]  # a setting's value, and where it was found

ELSEWHERE = {"node_modules", "site-packages", "venv", "env", "__pycache__", "build", "dist"}
SETTINGS_NAME = re.compile(r"""DJANGO_SETTINGS_MODULE["']\s*[],)]?\s*[=,]\s*["']([\w.]+)["']""")
LISTS = ("uv.lock", "poetry.lock", "pyproject.toml", "requirements.txt")
LISTS_OF_FOLDER = ("production.txt", "prod.txt", "app.txt", "base.txt", "requirements.txt", "common.txt")
HEALTH = re.compile(
    r"/?(readyz?|readiness|healthz?|health[-_]?checks?|livez|up|ping|status|ht)/?", re.IGNORECASE
)


class UnreadableListError(Exception):
    """The project's list of packages is of a kind that is not read; the message names the fix."""


def files(folder: Path, pattern: str = "*.py", depth: int = 6) -> list[Path]:
    """Files of the application itself, those near the top first."""
    found = [
        path
        for path in folder.rglob(pattern)
        if len(parts := path.relative_to(folder).parts) <= depth
        and not any(part.startswith(".") or part in ELSEWHERE for part in parts)
    ]
    return sorted(found, key=lambda path: (len(path.parts), path))


def of_tests(path: Path, folder: Path) -> bool:
    return any(part.startswith("test") for part in path.relative_to(folder).parts)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def tree_of(path: Path) -> ast.Module:
    try:
        return ast.parse(text_of(path))
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def literal(node: ast.expr | None) -> Any:
    """The value of a literal; None for anything else."""
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def name_of(node: ast.Call) -> str:
    """path of path(...), Celery of celery.Celery(...)"""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def routes_of(path: Path, *functions: str) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    return [node for node in calls if name_of(node) in functions]


def url_path(url: object) -> str | None:
    """/static/ of "static/" or "https://cdn.example.org/static/"; None for what nginx cannot serve."""
    if not isinstance(url, str) or not url.strip("/"):
        return None
    path = re.sub(r"^https?://[^/]+", "", url).strip("/")
    return f"/{path}/" if re.fullmatch(r"([\w.-]+/)*[\w.-]+", path) else None


def has_dependencies(pyproject: Path) -> bool:
    try:
        return bool(tomllib.loads(text_of(pyproject)).get("project", {}).get("dependencies"))
    except tomllib.TOMLDecodeError:
        return False


class Application:
    """A source. Each method that is named after a setting returns (value, where it was found), or None."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root  # where manage.py is
        self.settings: dict[str, ast.expr] = {}
        self.settings_text = ""

    def short(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def module_file(self, module: str) -> Path | None:
        """The file of a module that `python manage.py` would import."""
        path = self.folder.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
        return None

    def module_of(self, path: Path) -> str:
        parts = path.relative_to(self.folder).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def app_directory(self) -> Found | None:
        found = [path for path in files(self.root, "manage.py") if "django" in text_of(path)]
        serious = [path for path in found if not of_tests(path, self.root)] or found
        nearest = [path for path in serious if len(path.parts) == len(serious[0].parts)]
        if len(nearest) != 1:
            return None
        folder = self.short(nearest[0].parent)
        return folder, f"{self.short(nearest[0])} stands there"

    def app_settings_module(self) -> Found | None:
        # manage.py is last, as it often names a developer's settings
        servers = [*files(self.folder, "asgi.py"), *files(self.folder, "wsgi.py")]
        for path in [*servers, *files(self.folder, "manage.py"), *files(self.folder, depth=3)]:
            named = SETTINGS_NAME.search(text_of(path))
            if named and not of_tests(path, self.folder) and self.module_file(named[1]):
                return named[1], self.short(path)
        return None

    def read_settings(self, module: str) -> bool:
        """Read a settings module and those that it imports names from. False if there is no such module."""
        waiting, seen = [module], set()
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

    def setting(self, name: str) -> Any:
        return literal(self.settings.get(name))

    def app_settings_overlay(self) -> Found:
        text = self.settings_text
        database = re.search(r"DATABASE_URL|env\.db\(|\.db_url\(", text)
        key = re.search(r"""(environ|getenv|env|config|read)\W[^\n]{0,40}SECRET_KEY""", text)
        if database and key:
            return False, "the settings read DATABASE_URL and SECRET_KEY from the environment"
        return True, "the settings do not read DATABASE_URL and SECRET_KEY from the environment"

    def app_asgi(self) -> Found:
        named = self.setting("ASGI_APPLICATION")
        if isinstance(named, str) and self.module_file(named.rpartition(".")[0]):
            return ":".join(named.rpartition(".")[::2]), "ASGI_APPLICATION"
        for path in files(self.folder, "asgi.py"):
            if not of_tests(path, self.folder) and re.search(r"^application\b", text_of(path), re.MULTILINE):
                return f"{self.module_of(path)}:application", self.short(path)
        return "", "there is no asgi.py: Django's own"

    def app_websocket_path(self) -> Found | None:
        speakers = [path for path in files(self.folder) if "ProtocolTypeRouter" in text_of(path)]
        speakers = [path for path in speakers if not of_tests(path, self.folder)]
        if not speakers:
            return "", "nothing here speaks WebSockets (no ProtocolTypeRouter)"
        routed: dict[Any, Path] = {}
        for path in files(self.folder):
            if "as_asgi" in text_of(path) and not of_tests(path, self.folder):
                for call in routes_of(path, "path", "re_path"):
                    if "as_asgi" in ast.dump(call):
                        routed[literal(call.args[0] if call.args else None)] = path
        if not routed or None in routed:
            return None
        firsts = {match[1] for route in routed if (match := re.match(r"\^?/?([\w-]*)", route))}
        if len(firsts) != 1 or not firsts - {""}:
            return None
        return f"/{firsts.pop()}/", self.short(next(iter(routed.values())))

    def app_requirements(self) -> Found | None:
        for folder in dict.fromkeys((self.folder, self.root)):
            for name in LISTS:
                path = folder / name
                if path.is_file() and (name != "pyproject.toml" or has_dependencies(path)):
                    return self.short(path), "the first of its kind there"
            for name in LISTS_OF_FOLDER:
                if (folder / "requirements" / name).is_file():
                    return self.short(folder / "requirements" / name), "the first of its kind there"
            for name, fix in requirements.EXPORTS.items():
                if name != "setup.py" and (folder / name).is_file():
                    raise UnreadableListError(
                        f"{name} is not read: run `{fix}`, and give APP_REQUIREMENTS=requirements.txt"
                    )
        return None

    def packages(self, file: str) -> set[str]:
        """The names of the packages that a list asks for, as far as they can be seen without a resolver."""
        path = self.root / file
        pyproject = path.with_name("pyproject.toml")
        if path.suffix != ".txt" and pyproject.is_file():
            names = set(requirements.dependencies(tomllib.loads(text_of(pyproject))))
            if path.name == "poetry.lock":
                names |= set(re.findall(r'^name = "([^"]+)"', text_of(path), re.MULTILINE))
            return names
        try:
            return {requirements.name_of(line) for line in requirements.lines_of(path)}
        except (OSError, requirements.RefusedError) as error:
            raise UnreadableListError(f"{file}: {error}") from None

    def app_celery(self, packages: set[str]) -> Found | None:
        found = []
        for path in files(self.folder):
            if of_tests(path, self.folder) or "Celery" not in text_of(path):
                continue
            for node in tree_of(path).body:
                if (
                    isinstance(node, ast.Assign)
                    and isinstance(node.value, ast.Call)
                    and name_of(node.value) == "Celery"
                    and isinstance(node.targets[0], ast.Name)
                ):
                    found.append((f"{self.module_of(path)}:{node.targets[0].id}", self.short(path)))
        if not found:
            return "", "no Celery application was found"
        if "celery" not in packages:
            return "", "the list of packages has no celery"
        return found[0] if len(found) == 1 else None

    def app_static_url(self) -> Found:
        if "django.contrib.staticfiles" not in self.settings_text:
            return "", "django.contrib.staticfiles is not used"
        named = self.setting("STATIC_URL")
        path = url_path(named)
        return (path, f"STATIC_URL is {named!r}") if path else ("/static/", "Django's own STATIC_URL")

    def app_media_url(self) -> Found:
        path = url_path(self.setting("MEDIA_URL"))
        stores = [
            path
            for path in files(self.folder, "models.py")
            if re.search(r"(File|Image)Field\(", text_of(path))
        ]
        if path and stores:
            where = f'MEDIA_URL; {self.short(stores[0])} stores files. "" where not everybody may see them'
            return path, where
        return "", "nothing was found that shows stored files"

    def root_urlconf(self) -> Path | None:
        named = self.setting("ROOT_URLCONF")
        return self.module_file(named) if isinstance(named, str) else None

    def app_health_path(self) -> Found | None:
        path = self.root_urlconf()
        if not path:
            return None
        routes = []
        for call in routes_of(path, "path", "re_path", "url"):
            named = next((keyword.value for keyword in call.keywords if keyword.arg == "route"), None)
            route = literal(call.args[0] if call.args else named)
            if isinstance(route, str):
                routes.append(route.lstrip("^").rstrip("$"))
        healthy = sorted(filter(HEALTH.fullmatch, routes), key=lambda one: "read" not in one)
        return (f"/{healthy[0]}", self.short(path)) if healthy else None

    def guess_of_health(self) -> str:
        path = self.root_urlconf()
        return "/admin/login/" if path and "admin.site.urls" in text_of(path) else "/"
