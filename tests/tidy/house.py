"""What the tidy tests share: where the checkout is and which files belong to the project."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "vevents"


@cache
def project_files() -> tuple[Path, ...]:
    """Return every file that git tracks, or would track: nothing that is built or ignored."""
    if (ROOT / ".git").exists():
        # safe.directory: in a container the checkout often belongs to another user.
        command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
        listed = subprocess.run(
            [*command, "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = list(_unpacked(ROOT))  # a release tarball has no .git
    return tuple(sorted(path for path in paths if path.is_file()))


def _unpacked(folder: Path) -> Iterator[Path]:
    """Yield the files of a tree without .git, passing over what .gitignore names."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    ignored = [line.strip("/") for line in lines]
    for path in folder.iterdir():
        if any(fnmatch(path.name, pattern) for pattern in ignored):
            continue
        if path.is_dir():
            yield from _unpacked(path)
        else:
            yield path


def package_modules() -> list[Path]:
    """Return the Python files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Import(NamedTuple):
    """One imported module: its dotted name, the line, and when the import happens."""

    name: str
    line: int
    when: str  # "load": with the module; "call": inside a function; "check": for the type checker


def imports_of(path: Path) -> Iterator[Import]:
    """Yield every import of a file, `from package import module` included."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    yield from _walk(tree, _package_of(path), "load")


def _package_of(path: Path) -> list[str]:
    return list(path.relative_to(PACKAGE.parent).parent.parts)


def _walk(node: ast.AST, package: list[str], when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, when)
        elif isinstance(child, ast.ImportFrom):
            base = package[: len(package) - child.level + 1] if child.level else []
            stem = ".".join([*base, *([child.module] if child.module else [])])
            for alias in child.names:
                yield Import(f"{stem}.{alias.name}", child.lineno, when)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, package, "call" if when == "load" else when)
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            for statement in child.body:
                yield from _walk(ast.Module([statement], []), package, "check")
            for statement in child.orelse:
                yield from _walk(ast.Module([statement], []), package, when)
        else:
            yield from _walk(child, package, when)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )
