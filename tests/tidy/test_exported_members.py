"""`__all__` of every module: sorted, complete, importable."""

from __future__ import annotations

import ast
import importlib
import typing

import pytest
from house import module_name, package_modules

import vevents
import vevents.adapters
import vevents.log


def exported(path) -> list[str] | None:
    """Return the names in the `__all__` of a file, in their order; None if it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                assert isinstance(node.value, ast.List | ast.Tuple)
                return [ast.literal_eval(item) for item in node.value.elts]
    return None


EXPORTING = [path for path in package_modules() if exported(path) is not None]


@pytest.mark.parametrize("path", EXPORTING, ids=module_name)
def test_what_is_exported_is_sorted_and_there(path):
    names = exported(path)
    module = importlib.import_module(module_name(path))

    # As ruff sorts it: constants, classes, functions; each group in order of the alphabet.
    assert names == sorted(set(names), key=_rank)
    missing = [name for name in names if not hasattr(module, name)]
    assert not missing


def _rank(name: str) -> tuple[int, str]:
    if name.isupper():
        return 0, name
    return (1, name) if name[:1].isupper() else (2, name)


def test_the_package_exports_what_a_user_needs():
    assert {
        "Classification",
        "Event",
        "EventLog",
        "EventType",
        "EventValidationError",
        "Image",
        "InstanceSegmentation",
        "Keypoint",
        "KeypointDetection",
        "ObjectDetection",
        "VeventsError",
        "__version__",
    } <= set(vevents.__all__)


def test_a_folder_that_hands_out_names_says_which():
    # An __init__ that only imports is a shop window; without __all__ nobody knows what is for sale.
    for path in package_modules():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        statements = [
            node
            for node in body
            if not isinstance(node, ast.Expr)
            and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        ]
        if path.name == "__init__.py" and any(
            isinstance(node, ast.ImportFrom) for node in statements
        ):
            is_window = not any(
                isinstance(node, ast.FunctionDef | ast.ClassDef) for node in statements
            )
            assert not is_window or exported(path) is not None, module_name(path)


def _asked_for_types() -> list[object]:
    """Return what the public modules hand out, with the methods of classes."""
    found: list[object] = []
    for module in (vevents, vevents.adapters, vevents.log):
        for name in getattr(module, "__all__", dir(module)):
            given = getattr(module, name)
            if name.startswith("_") or not getattr(given, "__module__", "").startswith("vevents"):
                continue
            found.append(given)
            if isinstance(given, type):
                members = [member for key, member in vars(given).items() if key[0] != "_"]
                found += [getattr(member, "fget", member) for member in members]
                found.append(given.__init__)
    return [one for one in found if callable(one)]


def test_types_can_be_asked_for_while_the_program_runs():
    """By pydantic, sphinx and their like; names for the type checker alone would fail there."""
    asked = _asked_for_types()
    assert len(asked) > 100

    failed = {}
    for one in asked:
        try:
            typing.get_type_hints(one)
        except NameError as error:
            failed[f"{one.__module__}.{one.__qualname__}"] = error

    assert not failed
