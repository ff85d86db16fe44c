"""Build a release in a directory of its own, as the application's user, who alone runs what packages bring.

release.json, written last, says that it is whole; what a build that was cut off left is removed by the next one.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from .config import Config
from .slots import live_slot, release_in
from .system import CommandError, write_atomically

UV_CACHE = Path("/var/cache/pergola/uv")
FILES = 20_000  # that a release may have; on ext4 their number is limited
FIRST_MB = 300  # what the first release of a host needs, where none is live that tells
FULL_MB = 100  # a disk with less free is full: the cache of packages goes


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What the control machine brings beside the source: build.json."""

    revision: str
    packages: str  # the digest of all of them; releases with the same share their files
    locks: tuple[
        str, ...
    ]  # files with hashes, in their order: pergola_runtime's first, requirements.txt last
    wheel: str  # of pergola_runtime; empty without it
    servers: tuple[str, ...]  # modules that the application itself must bring
    static: bool  # whether static files are collected
    python_index: str  # empty: uv's own


def read_recipe(directory: Path) -> Recipe:
    found = json.loads((directory / "build.json").read_text())
    return Recipe(**{name: tuple(one) if isinstance(one, list) else one for name, one in found.items()})


def begin(config: Config, release: str, needs_mb: int) -> bool:
    """Make an empty directory for a release; return False if it is here, whole.

    CommandError: too little space is free (`needs_mb`; 0: twice what the live release takes).
    """
    directory = config.home / "releases" / release
    if (directory / "release.json").exists():
        return False
    check_space(config, needs_mb)
    shutil.rmtree(directory, ignore_errors=True)
    for path in (directory, directory / "source", directory / "static"):
        path.mkdir(mode=0o750)
        shutil.chown(path, config.user, config.group)
    return True


def check_space(config: Config, needs_mb: int) -> None:
    live = live_slot(config)
    needs = needs_mb or 2 * (
        size_mb(config.home / "releases" / release_in(config, live)) if live else FIRST_MB
    )
    places = [config.home / "releases", UV_CACHE.parent]
    free = min(shutil.disk_usage(place).free // 2**20 for place in places)
    disk = os.statvfs(places[0])
    if free < needs or (disk.f_files > 0 and disk.f_favail < FILES):
        raise CommandError(
            f"{free} MB and {disk.f_favail} files are free where releases and packages go ({places[0]}, {UV_CACHE}), "
            f"and a release needs {needs} MB and {FILES} files: free some space (packages are downloaded again), or "
            "set deploy_keep lower and deploy the live release again"
        )


def size_mb(directory: Path) -> int:
    """Of the disk; what several releases share counts for each."""
    return sum(path.lstat().st_blocks for path in directory.rglob("*")) * 512 // 2**20


def build(config: Config, release: str) -> None:
    """Build what begin() and the control machine left in the release's directory.

    CommandError: what could not be built; the directory is gone then.
    """
    directory = config.home / "releases" / release
    recipe = read_recipe(directory)
    try:
        unpack(config, directory)
        install(config, directory, recipe)
        if recipe.static:
            collect_static_files(config, directory)
        give_to_root(config, directory)
    except (CommandError, OSError):
        if shutil.disk_usage(UV_CACHE).free < FULL_MB * 2**20:  # it would stay full
            for path in UV_CACHE.iterdir():
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
        raise
    facts = {
        "id": release,
        "revision": recipe.revision,
        "packages": recipe.packages,
        "built": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(directory / "release.json", json.dumps(facts) + "\n")


def as_user(config: Config, directory: Path, *arguments: str | Path, **environment: str) -> None:
    """Run a program in the release's directory, behind the live release in the queue for the processor.

    CommandError: its message.
    """
    known = {"PATH": os.environ["PATH"], "HOME": str(UV_CACHE), "LANG": "C.UTF-8"} | environment
    done = subprocess.run(
        ["nice", "--adjustment=10", *(str(one) for one in arguments)],
        cwd=directory,
        env=known,
        user=config.user,
        group=config.group,
        extra_groups=[],
        umask=0o027,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        name = Path(str(arguments[0])).name
        raise CommandError(f"{name} {arguments[1]}: {(done.stderr or done.stdout).strip()[-4000:]}")


def unpack(config: Config, directory: Path) -> None:
    with tarfile.open(directory / "source.tar.gz") as archive:
        archive.extractall(directory / "source", filter="data")
    for path in (directory / "source").rglob("*"):
        os.chown(path, *owner(config), follow_symlinks=False)
    # the sandbox lets nothing write .pyc files later
    as_user(config, directory, "python3", "-m", "compileall", "-q", "-j", "0", "source")


def owner(config: Config) -> tuple[int, int]:
    import grp
    import pwd

    return pwd.getpwnam(config.user).pw_uid, grp.getgrnam(config.group).gr_gid


def install(config: Config, directory: Path, recipe: Recipe) -> None:
    environment = directory / "venv"
    if known := with_packages(config, recipe.packages):
        # links to files that nothing writes to
        shutil.copytree(known / "venv", environment, symlinks=True, copy_function=os.link)
        return
    uv = {"UV_CACHE_DIR": str(UV_CACHE), "UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "true"}
    if recipe.python_index:
        uv["UV_DEFAULT_INDEX"] = recipe.python_index
    # relocatable: its programs find it where they stand, also when another release links to them
    as_user(
        config,
        directory,
        "uv",
        "venv",
        "--quiet",
        "--relocatable",
        "--python",
        "/usr/bin/python3",
        "venv",
        **uv,
    )
    uv["VIRTUAL_ENV"] = str(environment)
    pip = ("uv", "pip", "install", "--quiet")
    # The runtime's own pins first, then the application's over them: where both name a package the application's
    # version wins, and `uv pip check` refuses it when the runtime cannot work with it.
    *locks, application = recipe.locks
    if recipe.wheel:
        chosen = [argument for lock in locks for argument in ("--requirements", lock)]
        as_user(config, directory, *pip, "--require-hashes", *chosen, **uv)
        as_user(config, directory, *pip, "--no-deps", f"./{recipe.wheel}", **uv)
    as_user(config, directory, *pip, "--require-hashes", "--no-deps", "--requirements", application, **uv)
    as_user(config, directory, "uv", "pip", "check", **uv)
    as_user(config, directory, environment / "bin/python", "-m", "compileall", "-q", "-j", "0", "venv/lib")
    check_servers(config, directory, recipe)


def with_packages(config: Config, packages: str) -> Path | None:
    for path in (config.home / "releases").glob("*/release.json"):
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text()).get("packages") == packages:
                return path.parent
    return None


def check_servers(config: Config, directory: Path, recipe: Recipe) -> None:
    found = [path.name for path in (directory / "venv").glob("lib/python3*/site-packages/*")]
    missing = [name for name in recipe.servers if name not in found and f"{name}.py" not in found]
    if missing:
        raise CommandError(
            "app_runtime is false, so that the application's own packages must serve it, and they lack "
            f"{' and '.join(missing).replace('_', '-')}"
        )


def collect_static_files(config: Config, directory: Path) -> None:
    command = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--wait",
        "--pipe",
        "--unit=app-collectstatic",
        "--nice=10",
    ]
    command += [f"--property=ReadWritePaths={directory}/source {directory}/static"]
    command += [f"--setenv=STATIC_ROOT={directory}/static"]
    command += [
        f"--working-directory={Path(directory, 'source', config.directory)}",
        f"{directory}/venv/bin/python",
    ]
    command += [*config.manage[1:], "collectstatic", "--no-input", "--verbosity=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"collectstatic: {(done.stderr or done.stdout).strip()[-4000:]}")


def give_to_root(config: Config, directory: Path) -> None:
    """A running application cannot change its own code, and nginx reads its static files."""
    _, group = owner(config)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, 0, group, follow_symlinks=False)
    for path in ((directory / "static"), *(directory / "static").rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
