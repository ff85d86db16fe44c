"""The parts of the tests: how each runs, where, and which files its result depends on.

A result counts as long as none of those files changes, so the lists are wide: everything that the part runs,
renders, installs or reads. A part fails if its pytest opens a file of this checkout that its list does not
name.
"""

from dataclasses import dataclass, field, replace

# Patterns of fnmatch, in which * matches / as well. Pages (*.md) count only where a pattern ends with .md.
CONTROL = (
    *("requirements/*", "pyproject.toml", ".gitignore", ".gitattributes"),
    *("tests/conftest.py", "tests/diagnosis.py", "tests/house.py", "tests/waiting.py"),
    *("tests/proof/checks.py", "tests/proof/verdict.py"),
)
APP = (
    *(*CONTROL, "app/*", "app/*.md", "runtime/*", "runtime/*.md", "docs/async-django.md"),
    *("tests/app/*", "tests/*.py"),  # the guide in docs names tests of all directories
)
CONFIG = (
    *(*CONTROL, "app/*", "bench/*", "docs/*", "infra/*", "pergola/*", "runtime/*", "tests/*"),
    *("Makefile", "ansible.cfg"),
    *("README.md", "README.ko.md", "bench/README.md", "docs/servers.md", "infra/*.md", "runtime/*.md"),
)
STACK = (
    *(*CONTROL, "app/*", "app/*.md", "infra/*", "pergola/*", "runtime/*", "runtime/*.md"),
    *("Makefile", "ansible.cfg", "tests/http3.py", "tests/with-replica"),
)
REPLICA = (*STACK, "tests/infra/conftest.py", "tests/infra/tools.py", "tests/faults/replica.py")
MACHINES = (*STACK, "tests/machines/conftest.py", "tests/machines/environment.py")
VERIFY = ("tests/infra/*", "tests/smoke/*")
LINKED = ("*.md", "LICENSE")
SERVERS = ("tests/app/servers.py", "tests/debian.py")


@dataclass(frozen=True)
class Part:
    """A directory of tests, or a longer run of it, with its own line in the ledger.

    links: patterns of files that only have to be there, as tests check links to them.
    place: `here` needs no machine, `replica` runs on a replica that it shares with the parts of its group,
        `own` makes its machines itself.
    group: the parts of a group run one after another, two groups at the same time.
    ci: whether `make test-ci` runs it; `make test-full` runs all.
    alone: nothing else may run meanwhile, as it measures the machine, or needs all of it.
    committed: it tests a clone of HEAD, so that nothing is recorded while its files differ from HEAD's.
    counts: whether it is made of tests that are counted; otherwise its exit status is its result.
    minutes: after which it is ended. A slow machine of CI needs some three times what a fast one does.
    """

    name: str
    target: str
    files: tuple
    proves: str
    place: str = "here"
    group: str = "quick"
    ci: bool = True
    alone: bool = False
    committed: bool = False
    counts: bool = True
    minutes: int = 60
    links: tuple = ()
    variables: dict = field(default_factory=dict)

    @property
    def command(self):
        return ["make", "--no-print-directory", self.target]


# --- what `make test-ci` runs

INFRA = Part(
    "infra",
    "test-infra",
    (*STACK, "tests/infra/*"),
    "what runs, listens and is readable on a server; units that are killed or stopped; second converge",
    place="replica",
    group="infra",
)
SMOKE = Part(
    "smoke",
    "test-smoke",
    (*STACK, "tests/smoke/*"),
    "the site as a client sees it: HTTP/1.1, 2, 3, TLS, WebSockets",
    place="replica",
    group="site",
)
BROWSER = Part(
    "browser",
    "test-browser",
    (*REPLICA, "tests/browser/*", "tests/debian.py"),
    "every page in Chromium: it loads, fits, and can be read by all",
    place="replica",
    group="site",
)
QUICK = (
    Part(
        "lint",
        "lint",
        (
            *("*.py", "*.yml", "*.yaml", "*.sh", "*.toml", "*.cfg"),
            *(".ansible-lint", ".ci/*", ".gitignore", ".yamllint"),
            *("docs/examples/*", "infra/*", "requirements/*", "Makefile", "tests/with-replica"),
        ),
        "the style of Python, Ansible, YAML and shell",
        counts=False,
    ),
    Part(
        "app",
        "test-app",
        APP,
        "the sample application and the runtime's servers, without a service",
        links=LINKED,
    ),
    Part(
        "runtime",
        "test-runtime",
        (
            *CONTROL,
            *SERVERS,
            "app/*",
            "runtime/*",
            "runtime/*.md",
            "tests/runtime/unit/*",
            "tests/runtime/host/inside/*",  # README names tests there
        ),
        "the runtime alone: which handler serves, the limits of Redis, delays of jobs",
    ),
    Part(
        "config",
        "test-config",
        CONFIG,
        "settings, contracts between files, rendered files, bad input",
        links=LINKED,
    ),
    Part(
        "pergola",
        "test-pergola",
        (
            *(*CONTROL, "app/*", "infra/*", "pergola/*", "runtime/*", "tests/appctl/*", "tests/pergola/*"),
            *("Makefile", "ansible.cfg"),
        ),
        "the packages of the control machine and of the host: new-env, sources, machines; releases, slots",
    ),
    Part(
        "api",
        "test-api",
        (*CONTROL, *SERVERS, "app/*", "runtime/*", "tests/api/*"),
        "requests made from the API's OpenAPI document, well-formed and not",
    ),
    Part(
        "migrations",
        "test-migrations",
        (*CONTROL, *SERVERS, "app/*", "runtime/*", "tests/migrations/*"),
        "the linter and the applying of migrations, on PostgreSQL",
    ),
    Part("load", "test-load", (*CONTROL, *SERVERS, "tests/load/*"), "that the load clients count every loss"),
)
RUNTIME_HOST = Part(
    "runtime-host",
    "test-runtime-host",
    (*REPLICA, "tests/runtime/host/*"),
    "isolation and answers of our request handler beside Django's own, and Django's tests by it",
    place="replica",
    group="site",
)
# the last of its group: it leaves the replica broken
RELEASES = Part(
    "releases",
    "test-releases",
    (*REPLICA, *MACHINES, *SERVERS, "tests/faults/*", "tests/load/*"),
    "deploys, rollbacks and broken releases under load lose nothing; a killed deploy is finished",
    place="replica",
    group="site",
    variables={"RELEASES_ROUNDS": "1"},
)
FRESH = Part(
    "fresh",
    "test-fresh",
    (*MACHINES, *VERIFY, "tests/fresh/*", "README.md"),
    "the README's commands on a computer that has nothing installed",
    place="own",
    group="fresh",
    committed=True,
)

# --- what `make test-full` runs as well

VAGRANT = Part(
    "vagrant",
    "test-vagrant",
    (*MACHINES, *VERIFY, "tests/vagrant/*", "Vagrantfile", "docs/local-replica.md"),
    "vagrant up in LXC, also with Ansible inside of the machine",
    place="own",
    group="vagrant",
    ci=False,
    variables={"FULL": "1"},
)
FULL = (
    Part(
        "machines",
        "test-machines",
        (*STACK, "infra/*.md", "tests/machines/*"),
        "how machines are made, killed, brought back and removed; the first converge of a server",
        place="own",
        group="machines",
        ci=False,
    ),
    Part(
        "your-app",
        "test-your-app",
        (*MACHINES, "tests/your_app/*"),
        "applications of other people, deployed by variables alone",
        place="own",
        group="your-app",
        ci=False,
    ),
    replace(
        INFRA,
        name="infra-full",
        proves="the playbooks without mitogen; nginx behind a balancer; more kills than systemd allows",
        group="servers",
        ci=False,
        variables={"FULL": "1", "ARGS": "-m full"},
    ),
    Part(
        "servers",
        "test-servers",
        (*REPLICA, "tests/smoke/*", "tests/servers/*", "docs/servers.md"),
        "each HTTP server and Django's own handler, deployed in turn under load",
        place="replica",
        group="servers",
        ci=False,
        minutes=90,
    ),
    VAGRANT,
    replace(
        FRESH,
        name="fresh-full",
        files=(*APP, *CONFIG, *FRESH.files),
        links=LINKED,
        proves="the same on Debian 13; the tests without machines as an unprivileged user",
        ci=False,
        variables={"RELEASES": "bookworm trixie", "FULL": "1", "ARGS": '-k "trixie or who_may_not"'},
    ),
    replace(
        RUNTIME_HOST,
        name="soak",
        proves="ten minutes of stress on the runtime's threads, on each Django",
        group="soak",
        ci=False,
        variables={"FULL": "1", "ARGS": "-k test_threads"},
    ),
    replace(
        RUNTIME_HOST,
        name="runtime-servers",
        files=(*RUNTIME_HOST.files, *SERVERS, "tests/runtime/unit/*"),
        proves="monitoring agents; the rest with each HTTP server and Django; its unit tests on Django 6.1",
        group="soak",
        ci=False,
        variables={"FULL": "1", "ARGS": '-k "not test_threads"'},
    ),
    Part(
        "recovery",
        "test-recovery",
        (
            *REPLICA,
            *MACHINES,
            *SERVERS,
            "tests/faults/*",
            "tests/infra/*",
            "tests/load/*",
            "tests/recovery/*",
        ),
        "disks that fill up; updates of the system take effect by themselves and lose nothing",
        place="replica",
        group="recovery",
        ci=False,
    ),
    replace(
        RELEASES,
        name="releases-full",
        proves="five rounds, each kind of broken release, a kill in each phase, power cuts, two hosts",
        group="releases-full",
        ci=False,
        minutes=150,
        variables={"FULL": "1", "RELEASES_ROUNDS": "5"},
    ),
    replace(
        VAGRANT,
        name="vagrant-libvirt",
        proves="vagrant up in a virtual machine, whose own kernel enforces limits of memory and tasks",
        group="vagrant-libvirt",
        alone=True,  # beside another group, it is slower than the product's own time limits
        minutes=180,
        variables={"PROVIDER": "libvirt"},
    ),
    Part(
        "bench",
        "bench",
        (*STACK, "bench/*"),
        "the targets for speed, beside other stacks in the same run",
        place="own",
        group="bench",
        ci=False,
        alone=True,
        minutes=90,
        variables={"NAME": "ledger-part"},  # git ignores it; a record for people has a date
    ),
)

# In the order in which the groups begin. By it both lanes of `make test-ci` end at about the same time: the
# quick parts and infra in one, the site's and fresh in the other.
PARTS = (*QUICK, SMOKE, BROWSER, RUNTIME_HOST, RELEASES, INFRA, FRESH, *FULL)
