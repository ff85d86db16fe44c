"""Every setting of Pergola: where it is defined, what it may hold, and what is wrong with the values given.

Two kinds of files describe the settings, and this module reads both:

- ``group_vars/all/PREFIX.yml`` defines the settings of one prefix and their defaults: first the settings for
  people, below the line ``# --- derived`` the values that follow from them. ``wiring.yml`` only passes a
  setting of one part to another part's role.
- ``roles/*/meta/argument_specs.yml`` says what a setting may hold. An option that is not ``required`` is a
  setting for people, as is every option of the entry point ``settings`` of the role preflight (``site_``,
  ``database_``). The others are inputs of the role. The first lines of ``description`` are the effect. The
  lines after them add what Ansible has no key for:

    Unit: seconds            of a number
    Range: 1 to 16           of a number, or of the number of elements of a list; also `at least 2`
    Pattern: [a-z]+          regular expression for the whole text, each element of a list, or each name in a
                             mapping
    Kind: address or network    what the text is, or each element of a list: one of KINDS, or a literal word
    Write: a path            what the message about a wrong value asks for
    Scope: environment       all hosts of an environment must have the same value
    Scope: run               also given for one run by ``-e NAME=true``, which passes text

``python -m pergola.settings`` prints docs/settings.md.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

# The settings and the derived values that have another name now: {old name: new name}.
RENAMED = {
    "control_ssh": "host_ssh",
    "project_directory": "environment_project_directory",
    "state_directory": "environment_state_directory",
}
DERIVED = "\n# --- derived\n"
# Values that a role sets while a playbook runs. Their prefix is that of a setting.
RESULTS = {"secrets_values"}
# labels of letters, digits and dashes, the last of which is not a number
DOMAIN = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
LINES = ("Unit", "Range", "Pattern", "Kind", "Write", "Scope")


class UnknownValueError(Exception):
    """A value that cannot be worked out, and why."""


class LaterError(Exception):
    """A template needs the secrets, which are loaded after the settings are checked."""


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


# By the words of a line `Kind:`.
KINDS: dict[str, Callable[[str], bool]] = {
    "address": lambda text: "/" not in text and _is_network(text),
    "domain name": lambda text: len(text) <= 253 and re.fullmatch(DOMAIN, text) is not None,
    "IPv4 address": lambda text: "." in text and "/" not in text and _is_network(text),
    "network": lambda text: "/" in text and _is_network(text),
    "SSH public key": lambda text: re.match(r"(ssh-|ecdsa-|sk-)\S+ \S+", text) is not None,
    "path of a .pub file": lambda text: (
        re.fullmatch(r"[~/.].*\.pub", text) is not None and Path(text).expanduser().is_file()
    ),
}


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _either(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *some, last = words
    return f"{', '.join(some)} or {last}" if some else last


@dataclass(frozen=True)
class Spec:
    """What a value may be: an option of an argument_specs.yml."""

    effect: str
    type: str
    required: bool
    secret: bool
    elements: str
    choices: tuple[str, ...]
    options: dict[str, "Spec"]  # of each mapping in a list
    lines: dict[str, str]  # {"Unit": "seconds"}

    @classmethod
    def read(cls, option: Mapping[str, Any]) -> "Spec":
        effect, lines = [], {}
        for line in option["description"]:
            key, _, text = line.partition(": ")
            if key in LINES:
                lines[key] = text
            else:
                effect.append(line)
        return cls(
            effect=" ".join(effect),
            type=option["type"],
            required=option.get("required", False),
            secret=option.get("no_log", False),
            elements=option.get("elements", ""),
            choices=tuple(str(choice) for choice in option.get("choices", ())),
            options={name: cls.read(one) for name, one in option.get("options", {}).items()},
            lines=lines,
        )

    @property
    def limits(self) -> tuple[int | None, int | None]:
        """The least and the greatest number that the line `Range:` allows."""
        text = self.lines.get("Range", "")
        if found := re.fullmatch(r"(-?\d+) to (-?\d+)", text):
            return int(found[1]), int(found[2])
        if found := re.fullmatch(r"at least (-?\d+)", text):
            return int(found[1]), None
        return None, None

    @property
    def kinds(self) -> list[str]:
        return re.split(", | or ", self.lines["Kind"]) if "Kind" in self.lines else []

    def problems(self, name: str, value: object, default: object = None) -> Iterator[str]:
        """What is wrong with a value, a line for each problem. The default serves as an example."""
        fix = f"write {self.wanted(default)}"
        if not self._has_type(self.type, value):
            yield f"{name} is {_show(value)}: {fix}"
        elif isinstance(value, Mapping):
            for key, entry in value.items():
                if not self._matches(key):
                    yield f"{name} has the name {_show(key)}: {fix}"
                elif self.type == "dict" and not self._is_line(entry):
                    yield f"{name} has a value for {key} that is not one line of text or a number: {fix}"
        elif isinstance(value, list | tuple):
            if not self._is_within(len(value)):
                yield f"{name} has {len(value)} elements: {fix}"
            for entry in value:
                if self.options and isinstance(entry, Mapping):
                    yield from self._problems_of_entry(name, entry, fix)
                elif not self._has_type(self.elements, entry) or not self._allows(entry):
                    yield f"{name} holds {_show(entry)}: {fix}"
        elif not self._allows(value):
            yield f"{name} is {_show(value)}: {fix}"

    def _problems_of_entry(self, name: str, entry: Mapping[str, object], fix: str) -> Iterator[str]:
        if missing := [key for key, spec in self.options.items() if spec.required and key not in entry]:
            yield f"{name} holds {_show(dict(entry))}, which lacks {', '.join(missing)}: {fix}"
        if unknown := [str(key) for key in entry if key not in self.options]:
            yield f"{name} holds {_show(dict(entry))}, where {', '.join(unknown)} has no effect: {fix}"
        for key, spec in self.options.items():
            if key in entry:
                yield from spec.problems(f"{key} of {name}", entry[key])

    def _has_type(self, kind: str, value: object) -> bool:
        if kind == "int":  # in Python true is a number too
            decimal = isinstance(value, str) and re.fullmatch(r"-?\d+", value) is not None
            return decimal or (isinstance(value, int) and not isinstance(value, bool))
        if kind == "bool":
            return isinstance(value, bool) or (
                self.lines.get("Scope") == "run" and str(value) in ("true", "false")
            )
        if kind in ("str", "path"):
            return isinstance(value, str | int | float) and not isinstance(value, bool)
        if kind == "list":
            return isinstance(value, list | tuple)
        return kind == "raw" or isinstance(value, Mapping)

    def _allows(self, value: object) -> bool:
        """Whether a single value, or an element of a list, is one of those that the spec allows."""
        if self.choices and str(value) not in self.choices:
            return False
        if self.type == "int":
            return self._is_within(int(str(value)))
        # an input may be a relative path on the control machine, a setting is a path on the servers
        if self.type == "path" and not self.required and not str(value).startswith("/"):
            return False
        fits = [KINDS.get(kind, kind.__eq__)(str(value)) for kind in self.kinds]
        return self._matches(value) and (not fits or any(fits))

    def _is_within(self, number: int) -> bool:
        least, most = self.limits
        return (least is None or number >= least) and (most is None or number <= most)

    def _matches(self, value: object) -> bool:
        pattern = self.lines.get("Pattern")
        return pattern is None or re.fullmatch(pattern, str(value)) is not None

    @staticmethod
    def _is_line(value: object) -> bool:
        return isinstance(value, str | int | float) and "\n" not in str(value)

    def wanted(self, default: object) -> str:
        if "Write" in self.lines:
            return self.lines["Write"]
        if self.choices:
            return _either(self.choices)
        if self.type == "int":
            least, most = self.limits
            limits = f" from {least} to {most}" if most is not None else f" of {least} or more"
            text = "a whole number" + (limits if least is not None else "")
        else:
            kinds = {"bool": "true or false", "list": "a list", "dict": "a mapping of names and values"}
            text = (kinds | {"path": "an absolute path"}).get(self.type, "a text")
        is_example = default not in (None, "", [], {}) and not isinstance(default, bool | list | dict)
        return f"{text}, such as {default}" if is_example and not _is_formula(default) else text


def _is_formula(value: object) -> bool:
    return isinstance(value, str) and "{{" in value


def holds_formula(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(holds_formula(one) for one in value.values())
    return any(holds_formula(one) for one in value) if isinstance(value, list) else _is_formula(value)


@dataclass(frozen=True)
class Setting:
    """A setting for people."""

    name: str
    default: object  # a literal, or a formula's text; None where an environment must set it
    spec: Spec

    @property
    def prefix(self) -> str:
        return self.name.partition("_")[0]


class Settings:
    """The settings of infra/ansible, whose path is ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.people: dict[str, dict[str, object]] = {}  # {file: {setting for people: its default}}
        self.derived: dict[str, dict[str, object]] = {}
        for path in sorted(folder.glob("group_vars/all/*.yml")):
            people, _, derived = path.read_text().partition(DERIVED)
            if path.stem == "wiring":
                people, derived = "", people
            self.people[path.stem], self.derived[path.stem] = _load(people), _load(derived)
        self.defaults = {name: value for file in self.people.values() for name, value in file.items()}
        self.formulas = {name: value for file in self.derived.values() for name, value in file.items()}

        self.settings: dict[str, Setting] = {}
        self.inputs: dict[str, Spec] = {}
        for path in sorted(folder.glob("roles/*/meta/argument_specs.yml")):
            for point, content in _load(path.read_text())["argument_specs"].items():
                for name, option in content.get("options", {}).items():
                    spec = Spec.read(option)
                    if spec.required and point != "settings":
                        self.inputs[name] = spec
                    else:
                        self.settings[name] = Setting(name, self.defaults.get(name), spec)
        self.known = {*self.defaults, *self.formulas, *self.settings, *self.inputs, *RESULTS}
        self.prefixes = tuple(f"{file}_" for file, settings in self.people.items() if settings)

    def check(
        self,
        given: Mapping[str, Any],
        work_out: Callable[[Any], Any] = lambda value: value,
        *,
        prefix: str = "",
        place: str = "group_vars",
    ) -> list[str]:
        """Return what is wrong with a host's variables, a line for each problem.

        given       {name: value}; a value may be a template
        work_out    works out such a template, or raises UnknownValueError or LaterError
        prefix      checks only names that begin with it
        place       the file in which an environment sets its values, for messages
        """
        problems = [
            self._unknown(name)
            for name in sorted(given)
            if name not in self.known and (name.startswith(prefix or self.prefixes) or name in RENAMED)
        ]
        specs = {name: setting.spec for name, setting in self.settings.items()} | self.inputs
        for name, spec in specs.items():
            # secrets may not exist yet, and their role checks them
            if spec.secret or not name.startswith(prefix):
                continue
            if spec.required and name in self.settings and given.get(name) is None:
                wanted = spec.wanted(self.defaults.get(name))
                problems.append(f"{name} is not set: write {wanted}, in {place}")
                continue
            # a derived value follows from settings that are checked themselves
            if name not in given or (name in self.formulas and given[name] == self.formulas[name]):
                continue
            try:
                value = work_out(given[name])
            except LaterError:
                continue
            except UnknownValueError as error:
                problems.append(self._no_value(name, str(error), spec.effect))
            else:
                problems += spec.problems(name, value, self.defaults.get(name))
        return list(dict.fromkeys(problems))

    def _unknown(self, name: str) -> str:
        if new := RENAMED.get(name):
            return f"{name} was renamed: write {new}"
        close = get_close_matches(name, self.known, n=1, cutoff=0.75)
        return f"{name} is not a setting of Pergola: " + (
            f"did you mean {close[0]}?" if close else "remove it"
        )

    @staticmethod
    def _no_value(name: str, reason: str, effect: str) -> str:
        old = next((old for old in RENAMED if re.search(rf"\b{old}\b", reason)), None)
        hint = f"{old} was renamed, write {RENAMED[old]}" if old else effect
        return f"{name} cannot be worked out ({reason}): {hint}"

    def differing(self, hosts: Mapping[str, Mapping[str, Any]], place: str) -> list[str]:
        """Return the settings that all hosts must share and do not: {host: its variables, as templates}."""
        (first, variables), *others = hosts.items()
        problems = []
        for setting in self.settings.values():
            name, value = setting.name, variables.get(setting.name)
            if setting.spec.lines.get("Scope") == "environment":
                for host, own in others:
                    if own.get(name) != value:
                        values = f"{_show(value)} on {first}, {_show(own.get(name))} on {host}"
                        problems.append(f"{name} differs between hosts ({values}): set it in {place}")
                        break
        return problems

    def without_effect(self, inventory: Path, place: str) -> list[str]:
        """Return the settings that an inventory sets where the defaults in group_vars/all have priority.

        These are its own group_vars/all, and the ``vars`` of the groups in hosts.yml.
        """
        own = inventory / "group_vars"
        found = {
            path: set(re.findall(r"^(\w+):", path.read_text(), re.M))
            for path in (own / "all", *own.glob("all.y*ml"), *own.glob("all/*"))
            if path.is_file()
        }
        hosts = inventory / "hosts.yml"
        if hosts.is_file():
            with suppress(yaml.YAMLError):  # a tag of Ansible, such as !vault
                found[hosts] = set(_names_in_vars(_load(hosts.read_text())))
        return [
            f"{name} has no effect in {path}, where Pergola's default has priority: set it in {place}"
            for path, names in found.items()
            for name in sorted(names & set(self.defaults))
        ]


def _load(text: str) -> dict[str, Any]:
    # the loader of libyaml is ten times as fast
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(text, loader)  # noqa: S506
    return content if isinstance(content, dict) else {}


def _names_in_vars(groups: object) -> Iterator[str]:
    """The names that groups of a hosts.yml set for all of their hosts."""
    if isinstance(groups, Mapping):
        for group in groups.values():
            if isinstance(group, Mapping):
                yield from group.get("vars") or {}
                yield from _names_in_vars(group.get("children"))


ABOUT = """\
# Settings

<!-- `make settings-doc` generates this page from group_vars/all/ and roles/*/meta/argument_specs.yml. -->

An environment sets its own values in `infra/ansible/inventory/<env>/group_vars/<env>.yml`, and those of one
host in its `hosts.yml`. Each converge and each deploy refuses wrong values before it changes anything. A
default "see ..." is a formula, or a long list, in that file. Formulas use the memory and the cores of
the host (`host_memory_mb` and `host_cores` in [host.yml]({host})).
"""


def document(settings: Settings, link: str = "../infra/ansible/group_vars/all") -> str:
    """Return docs/settings.md. ``link`` is the path from there to the files of the settings."""
    lines = [ABOUT.format(host=f"{link}/host.yml")]
    files = [file for file, people in settings.people.items() if people]
    for file in sorted(files, key=lambda file: (file != "site", file)):
        order = [*settings.people[file]]
        own = [one for one in settings.settings.values() if one.prefix == file]
        own.sort(key=lambda one: order.index(one.name) if one.name in order else -1)
        place = f"{link}/{file}.yml"
        lines += [f"## {file}", "", f"In [group_vars/all/{file}.yml]({place}). {_same(own)}", ""]
        lines += ["| name | type | default | unit | range | effect |", "|---|---|---|---|---|---|"]
        for one in own:
            cells = [f"`{one.name}`", _type(one.spec), _default(one, place)]
            cells += [one.spec.lines.get("Unit", ""), _range(one.spec), one.spec.effect]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def _same(settings: list[Setting]) -> str:
    """Which settings of a prefix all hosts must share."""
    same = [one.name for one in settings if one.spec.lines.get("Scope") == "environment"]
    free = [one.name for one in settings if one.name not in same]

    def names(some: list[str]) -> str:
        return ", ".join(f"`{name}`" for name in some)

    if not same:
        return "All may differ between hosts."
    if not free:
        return "All hosts of an environment have the same values."
    if len(free) < len(same):
        return f"All hosts of an environment have the same values, except for {names(free)}."
    return f"These are the same on all hosts of an environment: {names(same)}."


def _type(spec: Spec) -> str:
    kinds = {"int": "number", "bool": "true or false", "str": "text", "path": "path", "dict": "mapping"}
    if spec.type != "list":
        return kinds[spec.type]
    if "Kind" in spec.lines:
        return f"list: {spec.lines['Kind']}"
    keys = ", ".join(name if one.required else f"{name} (optional)" for name, one in spec.options.items())
    return f"list: {keys}" if keys else f"list: {kinds[spec.elements]}"


def _default(setting: Setting, link: str) -> str:
    default = setting.default
    text = yaml.safe_dump(default, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    if default is None:
        return "none: set it" if setting.spec.required else "none"
    if _is_formula(default) or len(text) > 80:
        return f"see [{Path(link).name}]({link})"
    return f"`{text}`"


def _range(spec: Spec) -> str:
    return ", ".join(f"`{choice}`" for choice in spec.choices) or spec.lines.get("Range", "")


if __name__ == "__main__":
    print(document(Settings(Path(__file__).parents[1] / "infra/ansible")), end="")
