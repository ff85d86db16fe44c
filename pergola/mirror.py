"""infra/ is a mirror of the server's files: a path there, less `.j2`, gives the path on the server."""

from pathlib import Path, PurePosixPath

KINDS = {".conf", ".j2", ".py"}  # of a directory; others are what editors and Python leave there


def destination(path: str) -> str:
    """Where a file of infra/ is installed: `usr/...` is /usr/..., everything else is in /etc."""
    return str(PurePosixPath("/" if path.startswith("usr/") else "/etc", path))


def sources(infra: Path, path: str) -> dict[str, Path]:
    """The files of a path, or of a directory whose path ends with a slash: {path less `.j2`: file}.

    FileNotFoundError: there is none.
    """
    if path.endswith("/"):
        below = sorted(one for one in (infra / path).rglob("*") if one.is_file() and one.suffix in KINDS)
        found = {str(one.relative_to(infra)).removesuffix(".j2"): one for one in below}
    else:
        template = infra / f"{path}.j2"
        found = {path: template if template.exists() else infra / path}
    if not found or not all(one.is_file() for one in found.values()):
        raise FileNotFoundError(f"infra/ has no {path}")
    return found
