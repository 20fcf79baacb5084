"""Who may import whom: the way of the data, one direction only."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
from house import PACKAGE, imports_of, module_name, package_modules

# Room: (rooms it may import, packages from outside it may import). The standard library is free
# for all, except where PURE says otherwise. A room is a module or a folder right under vevents.
RULES: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "event": ({"errors"}, {"numpy"}),
    "codec": ({"_ffi", "errors", "event"}, {"msgpack"}),
    "wire": ({"_ffi", "errors", "event"}, set()),
    "frames": ({"_ffi", "errors", "event"}, {"numpy", "PIL", "cv2"}),
    "_ffi": ({"_core", "errors"}, set()),
    "forks": (set(), set()),
    "pressure": ({"errors", "event", "forks", "frames"}, {"numpy"}),
    "log": ({"_ffi", "codec", "frames", "pressure", "event", "errors"}, {"msgpack"}),
    "flash": ({"log"}, set()),
    "detections": ({"_ffi", "codec", "log", "event", "errors"}, {"numpy"}),
    "adapters": (
        {"log", "detections", "event", "errors"},
        {"numpy", "cv2", "supervision"},
    ),
    "workflows": (
        {"adapters", "log", "forks", "frames", "event", "settings", "errors"},
        {"pydantic", "roboflow_workflows"},
    ),
    "settings": ({"errors", "pressure"}, set()),
    "files": (set(), set()),
    "installation": ({"errors", "files"}, set()),
    "delivery": (
        {
            "archive",
            "log",
            "codec",
            "wire",
            "frames",
            "files",
            "event",
            "pressure",
            "settings",
            "errors",
            "",
        },
        {"httpx"},
    ),
    "sdk": ({"log", "delivery", "settings", "event", "errors"}, set()),
    "archive": ({"wire", "frames", "event", "errors"}, set()),
    "bundles": (
        {"archive", "log", "delivery", "wire", "event", "errors"},
        set(),
    ),
    # Its judgement of events must not come from the code that it judges.
    "emulator": (
        {"errors"},
        {"starlette", "uvicorn", "jsonschema", "multipart", "python_multipart"},
    ),
    # It hosts the log and forwards nothing: no delivery.
    "store": (
        {"log", "wire", "files", "event", "settings", "errors"},
        {"starlette", "uvicorn"},
    ),
    "demo": (
        {"log", "event", "wire", "delivery", "emulator", "errors"},
        {"cv2", "numpy", "httpx"},
    ),
    "cli": (
        {
            "log",
            "event",
            "codec",
            "wire",
            "settings",
            "delivery",
            "emulator",
            "store",
            "demo",
            "bundles",
            "flash",
            "installation",
            "files",
            "errors",
            "",
        },
        {"click"},
    ),
    # vevents/__init__.py hands out the public names and nothing that talks to a network.
    "": ({"errors", "event", "_ffi", "log", "detections"}, set()),
    "__main__": ({"cli"}, set()),
}

# Rooms that touch no files, sockets, clocks or threads: everything they know was given to them.
PURE = {"errors", "event", "codec", "wire"}
IMPURE_LIBRARY = {
    "asyncio",
    "fcntl",
    "http",
    "io",
    "mmap",
    "multiprocessing",
    "random",
    "secrets",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
}

# Costly packages are imported inside the functions that need them: vevents itself must load fast.
HEAVY = {
    "PIL",
    "cv2",
    "httpx",
    "jsonschema",
    "multipart",
    "numpy",
    "python_multipart",
    "skimage",
    "starlette",
    "supervision",
    "uvicorn",
}
# Modules that only the emulator's own process or function loads may import what it is made of.
MAY_LOAD_HEAVY = {"emulator", "store"}


def room_of(name: str) -> str:
    """Return the room of a dotted name inside the package, "" for vevents/__init__.py."""
    parts = name.split(".")
    if len(parts) == 1:
        return ""
    # `from vevents import __version__` takes a name, not a module.
    known = (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").exists()
    return parts[1] if known or parts[1] == "_core" else ""


def faults_of(module: str, source_imports) -> list[str]:
    """Return one sentence for every import of `module` that breaks a rule."""
    room = room_of(module)
    if room not in RULES:
        return [f"{module}: the room {room!r} has no rule yet; give it one"]
    rooms, packages = RULES[room]
    faults = []
    for name, line, when in source_imports:
        top = name.split(".")[0]
        place = f"{module}:{line}"
        if top == "vevents":
            other = room_of(name)
            if other not in (room, *rooms):
                faults.append(f"{place}: {room or 'vevents'} must not import {name}")
        elif top in sys.stdlib_module_names:
            if room in PURE and top in IMPURE_LIBRARY:
                faults.append(f"{place}: {room} is pure and must not import {top}")
        elif top not in packages:
            faults.append(f"{place}: {room or 'vevents'} must not import {top}")
        elif top in HEAVY and when == "load" and room not in MAY_LOAD_HEAVY:
            faults.append(f"{place}: import {top} inside the function that needs it")
    return faults


def test_every_import_follows_the_house_rules():
    modules = package_modules()
    assert modules

    faults = [fault for path in modules for fault in faults_of(module_name(path), imports_of(path))]

    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("vevents.log", "import httpx", "must not import httpx"),
        ("vevents.log", "def f():\n    from vevents import wire", "must not import vevents.wire"),
        ("vevents.wire.cloud", "from ..log import EventLog", "must not import vevents.log"),
        ("vevents.emulator.app", "from vevents.event import Event", "must not import"),
        ("vevents.delivery.client", "import httpx", "inside the function"),
        ("vevents.delivery.client", "class A:\n    import httpx", "inside the function"),
        ("vevents.event", "import time", "is pure"),
        ("vevents.spool", "import os", "no rule yet"),
    ],
)
def test_the_rules_catch_what_they_are_for(module, source, fault, tmp_path, monkeypatch):
    path = tmp_path / "vevents" / ("/".join(module.split(".")[1:]) + ".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    found = list(_imports_at(path, tmp_path, monkeypatch))
    if "no rule" in fault:
        (tmp_path / "vevents" / "spool.py").touch()
        monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "vevents")

    assert any(fault in text for text in faults_of(module, found))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vevents.delivery.client", "def f():\n    import httpx"),
        (
            "vevents.delivery.client",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import httpx",
        ),
        ("vevents.delivery.flusher", "from vevents.log import EventLog"),
        ("vevents.wire.cloud", "import json\nfrom . import numbers"),
    ],
)
def test_the_rules_allow_what_they_should(module, source, tmp_path, monkeypatch):
    path = tmp_path / "vevents" / ("/".join(module.split(".")[1:]) + ".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)

    assert faults_of(module, list(_imports_at(path, tmp_path, monkeypatch))) == []


def _imports_at(path, root, monkeypatch):
    import house

    monkeypatch.setattr(house, "PACKAGE", root / "vevents")
    return house.imports_of(path)


def test_every_rule_has_its_room():
    rooms = {room_of(module_name(path)) for path in package_modules()}

    assert RULES.keys() == rooms


def test_only_one_module_touches_the_extension():
    users = {
        module_name(path)
        for path in package_modules()
        if any(name.startswith("vevents._core") for name, _, _ in imports_of(path))
    }

    assert users == {"vevents._ffi"}


def test_every_module_begins_with_a_docstring_and_postponed_annotations():
    for path in package_modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{path.name} says not what it is for"
        assert any(
            isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body
        ), f"{path.name} lacks `from __future__ import annotations`"


@pytest.mark.parametrize(
    "statement",
    [
        "import vevents",
        "import vevents.adapters",
        "import vevents.bundles",
        "import vevents.sdk",
        "import vevents.cli",
        "from vevents.cli import main; main(['--help'])",
    ],
)
def test_what_is_costly_is_not_loaded_before_it_is_needed(statement):
    program = (
        "import contextlib, io, json, sys\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    {statement.replace('; ', chr(10) + '    ')}\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    loaded = {name.split(".")[0] for name in json.loads(ran.stdout)}
    assert "vevents" in loaded
    assert not loaded & HEAVY
