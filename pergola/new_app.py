"""Write the inventory of a local replica for an application, with the settings that its source shows.

What is not found is asked for; without a terminal, one line says which variable to give. A variable with a
setting's name in capitals is an answer given beforehand: make new-app ... APP_HEALTH_PATH=/healthz. Nothing
of the application is run. An environment that exists is never overwritten.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import yaml

from pergola import environments
from pergola.application import Application, Found, UnreadableListError, Value
from pergola.environments import NAME, NAME_FORM, in_all_groups, new_folder

URL = re.compile(r"(https?|ssh|git|file)://|[^/]+@[^/]+:")

# each setting: what it is, and an answer that mostly fits; in the order in which one needs the other
WANTED = {
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
# all that there are, with their defaults: docs/settings.md.
"""


def refuse(text: str) -> NoReturn:
    environments.refuse(f"new-app: {text}")


def answer(name: str, found: Found | None, default: str | None) -> Found:
    """A given answer has precedence over what was found; what is neither given nor found is asked for."""
    meaning = WANTED[name][0]
    variable = name.upper()
    if variable in os.environ:
        text, where = os.environ[variable], f"given as {variable}"
    elif found:
        return found
    elif sys.stdin.isatty():
        said = input(f"{name}: {meaning}" + (f" [{default}]" if default is not None else "") + ": ").strip()
        if not said and default is None:
            refuse(f"{name} is needed: {meaning}")
        text, where = said or default or "", "as you said"
    else:
        example = f", such as {variable}={default}" if default else ""
        refuse(f"{name} was not found: give {variable}= ({meaning}{example})")
    if name == "app_settings_overlay":
        if text not in ("true", "false"):
            refuse(f"{variable}={text}: write true or false")
        return text == "true", where
    return text, where


def look(application: Application) -> dict[str, Found]:
    """Each setting with its value and where it was found."""
    known: dict[str, Found] = {}

    def settle(name: str, found: Found | None, default: str | None = None) -> Value:
        known[name] = answer(name, found, default if default is not None else WANTED[name][1])
        return known[name][0]

    directory = str(settle("app_directory", application.app_directory()))
    application.folder = application.root / directory
    if not application.folder.is_dir():
        refuse(f"app_directory: the source has no {directory}")
    module = str(settle("app_settings_module", application.app_settings_module()))
    if not application.read_settings(module):
        refuse(f"app_settings_module: {directory} of the source has no {module}; give APP_SETTINGS_MODULE=")
    settle("app_settings_overlay", application.app_settings_overlay())
    settle("app_asgi", application.app_asgi())
    settle("app_websocket_path", application.app_websocket_path())
    try:
        requirements = str(settle("app_requirements", application.app_requirements()))
        if not (application.root / requirements).is_file():
            refuse(f"app_requirements: the source has no {requirements}; give APP_REQUIREMENTS=")
        packages = application.packages(requirements)
    except UnreadableListError as error:
        refuse(str(error))
    settle("app_celery", application.app_celery(packages))
    settle("app_static_url", application.app_static_url())
    settle("app_media_url", application.app_media_url())
    settle("app_health_path", application.app_health_path(), application.guess_of_health())
    return known


def write(folder: Path, source: str, revision: str, known: dict[str, Found]) -> None:
    lines = [f"app_source: {json.dumps(source)}"]
    if revision:
        lines.append(f"app_revision: {json.dumps(revision)}")
    lines += [f"# {where}\n{setting}: {json.dumps(value)}" for setting, (value, where) in known.items()]
    hosts = HOSTS.format(name=folder.name) + in_all_groups("app")
    environments.write(folder, hosts, SETTINGS + "\n".join(lines) + "\n")
    (folder / "addresses.py").symlink_to("../../roles/machines/files/addresses.py")
    (folder / "group_vars/local.yml").symlink_to("../../local/group_vars/local.yml")


def clone(url: str, revision: str, folder: Path) -> None:
    branch = ["--branch", revision] if revision else []
    command = [
        shutil.which("git") or "git",
        "clone",
        "--quiet",
        "--depth",
        "1",
        *branch,
        "--",
        url,
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        refuse(f"SOURCE={url}: {' '.join(done.stderr.split())}")


def new_app(name: str, source: str) -> None:
    """Write infra/ansible/inventory/NAME/ for the application in a directory or at a git URL.

    Of a git URL the newest commit is looked at, or the revision of $APP_REVISION.
    """
    if not NAME.fullmatch(name):
        refuse(f"NAME={name!r}: write {NAME_FORM}")
    folder = new_folder(name)
    revision = os.environ.get("APP_REVISION", "")
    with tempfile.TemporaryDirectory() as aside:
        if URL.match(source):
            root = Path(aside, "source")
            clone(source, revision, root)
        else:
            given, root = source, Path(source).expanduser().resolve()
            source = str(root)
            if not given or not root.is_dir():
                refuse(f"SOURCE={given!r}: write a directory, or a git URL")
        known = look(Application(root))
    write(folder, source, revision, known)
    print(f"infra/ansible/inventory/{name}/ is written:")
    values = {setting: value for setting, (value, _) in known.items()}
    for line in yaml.safe_dump(values, sort_keys=False).splitlines():
        print(f"  {line}")
    print(
        f"Read group_vars/{name}.yml there: each value says where it was found. Then:\n  make up ENV={name}"
    )
