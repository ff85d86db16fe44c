"""The parts of the tests: how each runs, where, and which files its result depends on.

A result counts as long as none of those files changes, so the lists are wide: everything that the part runs,
renders, installs or reads. The runner fails a part that opens a file which its list does not name.
"""

from dataclasses import dataclass, field

# Patterns of fnmatch, in which * matches / as well. Pages (*.md) count only where a pattern ends with .md.
CONTROL = (
    "requirements/*",
    "pyproject.toml",
    "tests/conftest.py",
    "tests/diagnosis.py",
    "tests/house.py",
    "tests/waiting.py",
)
STACK = (
    *CONTROL,
    "app/*",
    "app/*.md",
    "infra/*",
    "runtime/*",
    "Makefile",
    "ansible.cfg",
    "tests/with-replica",
)
HOST = ("tests/infra/conftest.py", "tests/infra/tools.py")
REPLICA = (*STACK, *HOST, "tests/faults/replica.py")
MACHINES = (*STACK, "tests/machines/conftest.py", "tests/machines/environment.py")
VERIFY = ("tests/infra/*", "tests/smoke/*")


@dataclass(frozen=True)
class Part:
    """A directory of tests, or a longer run of it, with its own line in the ledger.

    place: `here` needs no machine, `replica` runs on a replica that it shares with the parts of its group,
        `own` makes its machines itself.
    group: the parts of a group run one after another, three groups at the same time.
    ci: whether `make test-ci` runs it; `make test-full` runs all.
    alone: nothing else may run meanwhile, as it measures the machine.
    """

    name: str
    target: str
    files: tuple
    proves: str
    place: str = "here"
    group: str = "quick"
    ci: bool = True
    alone: bool = False
    variables: dict = field(default_factory=dict)

    @property
    def command(self):
        return ["make", "--no-print-directory", self.target]


# In the order in which the groups begin. `quick` runs while the first replica is being built.
PARTS = (
    Part(
        "infra",
        "test-infra",
        (*STACK, "tests/infra/*"),
        "what runs, listens and is readable on a server; units that are killed or stopped; second converge",
        place="replica",
        group="stack",
    ),
    Part(
        "smoke",
        "test-smoke",
        (*STACK, "tests/smoke/*"),
        "the site as a client sees it: HTTP/1.1, 2, 3, TLS, WebSockets",
        place="replica",
        group="stack",
    ),
    Part(
        "browser",
        "test-browser",
        (*STACK, "tests/browser/*", "tests/debian.py"),
        "every page in Chromium: it loads, fits, and can be read by all",
        place="replica",
        group="stack",
    ),
    Part(
        "lint",
        "lint",
        (
            *("*.py", "*.yml", "*.yaml", "*.sh", "*.toml", "*.cfg", ".ansible-lint", ".yamllint", ".ci/*"),
            *("docs/examples/*", "infra/*", "requirements/*", "Makefile", "tests/with-replica"),
        ),
        "the style of Python, Ansible, YAML and shell",
    ),
    Part(
        "app",
        "test-app",
        (*CONTROL, "app/*", "app/README.md", "docs/async-django.md", "runtime/*", "tests/app/*"),
        "the sample application and the runtime's servers, without a service",
    ),
    Part(
        "config",
        "test-config",
        (
            *(
                *CONTROL,
                "app/*",
                "bench/*",
                "docs/*",
                "infra/*",
                "runtime/*",
                "tests/*",
                "Makefile",
                "ansible.cfg",
            ),
            *("bench/README.md", "docs/servers.md", "infra/*.md", "README.md", "README.ko.md"),
        ),
        "settings, contracts between files, rendered files, bad input",
    ),
    Part(
        "api",
        "test-api",
        (*CONTROL, "app/*", "runtime/*", "tests/api/*", "tests/app/servers.py"),
        "requests made from the API's OpenAPI document, well-formed and not",
    ),
    Part(
        "migrations",
        "test-migrations",
        (*CONTROL, "app/*", "runtime/*", "tests/app/servers.py", "tests/debian.py", "tests/migrations/*"),
        "the linter and the applying of migrations, on PostgreSQL",
    ),
    Part(
        "load",
        "test-load",
        (*CONTROL, "tests/app/servers.py", "tests/load/*"),
        "that the load clients count every loss",
    ),
    Part(
        "lean",
        "test-lean",
        (*REPLICA, "tests/lean/*"),
        "our request handler answers as Django's own, on Django 5.2 and 6.1",
        place="replica",
        group="releases",
    ),
    Part(
        "releases",
        "test-releases",
        (*REPLICA, *MACHINES, "tests/app/servers.py", "tests/faults/*", "tests/load/*"),
        "deploys, rollbacks and broken releases under load lose nothing; a killed deploy is finished",
        place="replica",
        group="releases",
        variables={"RELEASES_ROUNDS": "1"},
    ),
    Part(
        "fresh",
        "test-fresh",
        (*MACHINES, *VERIFY, "tests/fresh/*", "tests/app/*", "tests/config/*", "docs/*", "README.md"),
        "the README's commands on a computer that has nothing installed",
        place="own",
        group="fresh",
    ),
    Part(
        "machines",
        "test-machines",
        (*STACK, "tests/machines/*"),
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
    Part(
        "infra-full",
        "test-infra",
        (*STACK, "tests/infra/*"),
        "the playbooks without mitogen",
        place="replica",
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
    ),
    Part(
        "vagrant",
        "test-vagrant",
        (*MACHINES, *VERIFY, "tests/vagrant/*", "Vagrantfile", "docs/local-replica.md"),
        "vagrant up in LXC, also with Ansible inside of the machine",
        place="own",
        group="vagrant",
        ci=False,
        variables={"FULL": "1"},
    ),
    Part(
        "fresh-trixie",
        "test-fresh",
        (*MACHINES, *VERIFY, "tests/fresh/*", "tests/app/*", "tests/config/*", "docs/*", "README.md"),
        "the README's commands on Debian 13 as the control machine",
        place="own",
        group="fresh-trixie",
        ci=False,
        variables={"RELEASES": "trixie"},
    ),
    Part(
        "soak",
        "test-lean",
        (*REPLICA, "tests/lean/*"),
        "ten minutes of stress on the runtime's threads, on each Django",
        place="replica",
        group="soak",
        ci=False,
        variables={"FULL": "1", "ARGS": "-k test_threads"},
    ),
    Part(
        "releases-full",
        "test-releases",
        (*REPLICA, *MACHINES, "tests/app/servers.py", "tests/faults/*", "tests/load/*"),
        "five rounds, every kind of broken release, a kill in each phase, power cuts, two hosts, uv.lock",
        place="replica",
        group="releases-full",
        ci=False,
        variables={"FULL": "1", "RELEASES_ROUNDS": "5"},
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
    ),
    Part(
        "vagrant-libvirt",
        "test-vagrant",
        (*MACHINES, *VERIFY, "tests/vagrant/*", "Vagrantfile", "docs/local-replica.md"),
        "vagrant up in a virtual machine with a kernel of its own, which enforces limits of memory and tasks",
        place="own",
        group="vagrant-libvirt",
        ci=False,
        variables={"PROVIDER": "libvirt"},
    ),
)
