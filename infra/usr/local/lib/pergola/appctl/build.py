"""Build a release in its own directory, as the application's user: packages may run code at installation.

release.json is written last and marks the release as complete. The next build removes an incomplete one.
"""

import contextlib
import dataclasses
import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from .config import Config, ConfigError, convert
from .slots import live_slot, release_in
from .system import CommandError, run, write_atomically

FILES = 20_000  # that a release needs at most; ext4 has a fixed number of inodes
FIRST_MB = 300  # space for a host's first release; later ones are estimated from the live release
NETWORK = re.compile(r"(?i).*_proxy$|SSL_CERT_|UV_")  # variables of the host that a build inherits
FULL_MB = 100  # below this, a failed build also clears the package cache


@dataclasses.dataclass(frozen=True)
class Recipe:
    """build.json in the bundle: the control machine's parameters of the build."""

    revision: str
    packages: str  # digest of all packages; releases with the same digest share files
    runtime_locks: tuple[str, ...]  # pergola_runtime's requirements with hashes, in their order
    wheel: str  # of pergola_runtime; empty without it
    servers: tuple[str, ...]  # modules that the application's own requirements must install
    static: bool  # whether static files are collected
    directory: str  # of the project in its source
    manage: tuple[str, ...]  # the command that runs a management command

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        try:
            found = json.loads(path.read_text())
            return cls(**{one.name: convert(path, one.name, found[one.name], one.type) for one in FIELDS})
        except (KeyError, ValueError, ConfigError) as error:
            raise CommandError(
                f"{path.name} is from another version of Pergola ({error}): make converge"
            ) from None


FIELDS = dataclasses.fields(Recipe)


@dataclasses.dataclass
class Build:
    """A release that is being built."""

    config: Config
    release: str

    @property
    def directory(self) -> Path:
        return self.config.home / "releases" / self.release

    @property
    def owner(self) -> tuple[int, int]:
        return pwd.getpwnam(self.config.user).pw_uid, grp.getgrnam(self.config.group).gr_gid

    def is_needed(self) -> bool:
        return not (self.directory / "release.json").exists()

    def check_space(self, needs_mb: int) -> None:
        """Raise CommandError if less than `needs_mb` (0: twice the live release) or FILES inodes are free."""
        config, places = self.config, (self.config.home / "releases", self.config.package_cache)
        live = live_slot(config)
        needs = needs_mb or (2 * size_mb(places[0] / release_in(config, live)) if live else FIRST_MB)
        free = min(shutil.disk_usage(place).free // 2**20 for place in places)
        disk = os.statvfs(places[0])
        if free < needs or (disk.f_files > 0 and disk.f_favail < FILES):
            raise CommandError(
                f"{os.uname().nodename} has {free} MB and {disk.f_favail} files free where releases "
                f"and packages are stored ({config.home}, {config.package_cache}), and a release needs "
                f"{needs} MB and {FILES} files: free some space (packages are downloaded again), or set "
                "deploy_keep lower and deploy the live release again"
            )

    def build(self, bundle: Path) -> None:
        """Build the release from the control machine's bundle, and remove the bundle.

        CommandError: a step failed. The release's directory is then removed.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        try:
            self.unpack(bundle)
            bundle.unlink()  # now, as packages may need its space
            recipe = Recipe.read(self.directory / "build.json")
            self.install(recipe)
            if recipe.static:
                self.collect_static_files(recipe)
            self.give_to_root()
            facts = {
                "id": self.release,
                "revision": recipe.revision,
                "packages": recipe.packages,
                "built": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            write_atomically(self.directory / "release.json", json.dumps(facts) + "\n")
        except (CommandError, OSError, tarfile.TarError) as error:
            self.remove()
            raise CommandError(str(error)) from None
        finally:
            bundle.unlink(missing_ok=True)

    def remove(self) -> None:
        if shutil.disk_usage(self.config.package_cache).free < FULL_MB * 2**20:
            for path in self.config.package_cache.iterdir():
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def unpack(self, bundle: Path) -> None:
        for path in (self.directory, self.directory / "source", self.directory / "static"):
            path.mkdir()
            path.chmod(0o750)  # independent of the umask
        with tarfile.open(bundle) as archive:
            archive.extractall(self.directory, filter="data")
        self.chown(*self.owner)
        self.as_user(
            "tar", "--extract", "--gunzip", "--file=source.tar.gz", "--directory=source", "--no-same-owner"
        )
        # the sandbox does not let the application write .pyc files later
        self.as_user("python3", "-m", "compileall", "-q", "-j", "0", "source")

    def chown(self, user: int, group: int) -> None:
        run("chown", "--recursive", "--no-dereference", f"{user}:{group}", self.directory)

    def as_user(self, *arguments: str | Path, **environment: str) -> None:
        """Run a program in the release's directory at low CPU priority. CommandError: it failed."""
        known = {"PATH": os.environ["PATH"], "HOME": str(self.config.package_cache), "LANG": "C.UTF-8"}
        known |= {name: value for name, value in os.environ.items() if NETWORK.match(name)}
        identity = {"user": self.config.user, "group": self.config.group, "extra_groups": []}
        done = subprocess.run(
            ["nice", "--adjustment=10", *map(str, arguments)],
            cwd=self.directory,
            env=known | environment,
            umask=0o027,
            capture_output=True,
            text=True,
            check=False,
            **(identity if os.geteuid() == 0 else {}),  # type: ignore[call-overload]
        )
        if done.returncode:
            program = Path(arguments[0]).name
            raise CommandError(f"{program} {arguments[1]}: {(done.stderr or done.stdout).strip()[-4000:]}")

    def install(self, recipe: Recipe) -> None:
        environment = self.directory / "venv"
        if other := self.release_with(recipe.packages):
            # hard links: no process writes to these files
            run("cp", "--archive", "--link", other / "venv", environment)
        else:
            self.install_packages(recipe, environment)
        self.check_servers(recipe)

    def install_packages(self, recipe: Recipe, environment: Path) -> None:
        uv = {
            "UV_CACHE_DIR": str(self.config.package_cache),
            "UV_PYTHON_DOWNLOADS": "never",  # the system's Python, or a clear error
            "UV_SYSTEM_CERTS": "true",
            "VIRTUAL_ENV": str(environment),
        }
        if self.config.python_index:
            uv["UV_DEFAULT_INDEX"] = self.config.python_index
        # relocatable: its programs work in every directory, also in another release that links to them
        self.as_user("uv", "venv", "--quiet", "--relocatable", "--python=/usr/bin/python3", "venv", **uv)
        pip = ("uv", "pip", "install", "--quiet")
        # pergola_runtime's pins first, then the application's: where both name a package, the application's
        # version replaces the other, and `uv pip check` refuses one that pergola_runtime cannot work with.
        if recipe.wheel:
            locks = [f"--requirements={lock}" for lock in recipe.runtime_locks]
            self.as_user(*pip, "--require-hashes", *locks, **uv)
            self.as_user(*pip, "--no-deps", f"./{recipe.wheel}", **uv)
        self.as_user(*pip, "--require-hashes", "--no-deps", "--requirements=requirements.txt", **uv)
        self.as_user("uv", "pip", "check", **uv)
        self.as_user(environment / "bin/python", "-m", "compileall", "-q", "-j", "0", "venv/lib")

    def release_with(self, packages: str) -> Path | None:
        for path in (self.config.home / "releases").glob("*/release.json"):
            with contextlib.suppress(OSError, ValueError):
                if json.loads(path.read_text()).get("packages") == packages:
                    return path.parent
        return None

    def check_servers(self, recipe: Recipe) -> None:
        found = {path.stem for path in self.directory.glob("venv/lib/python3*/site-packages/*")}
        if missing := [name for name in recipe.servers if name not in found]:
            raise CommandError(
                "app_runtime is false, so app_requirements must contain the application's server; "
                f"it lacks {' and '.join(missing).replace('_', '-')}"
            )

    def collect_static_files(self, recipe: Recipe) -> None:
        """Collect static files in the application's sandbox, which applies by the unit's name."""
        source, static = self.directory / "source", self.directory / "static"
        run(
            *(
                "systemd-run",
                "--quiet",
                "--collect",
                "--wait",
                "--pipe",
                "--unit=app-collectstatic",
                "--nice=10",
            ),
            f"--property=ReadWritePaths={source} {static}",
            f"--setenv=STATIC_ROOT={static}",
            f"--working-directory={source / recipe.directory}",
            self.directory / "venv/bin/python",
            *recipe.manage[1:],
            *("collectstatic", "--no-input", "--verbosity=0"),
        )

    def give_to_root(self) -> None:
        """Prevent the application from changing its own code, and let nginx read its static files."""
        self.chown(0 if os.geteuid() == 0 else os.geteuid(), self.owner[1])
        run("chmod", "--recursive", "a+rX", self.directory / "static")  # it does not follow links


def size_mb(directory: Path) -> int:
    return int(run("du", "--summarize", "--block-size=1M", directory).split()[0])
