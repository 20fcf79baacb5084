"""What Python sees of the C library is what its headers say, nothing less or more."""

from __future__ import annotations

import importlib.util
import re

import pytest
from house import PACKAGE, ROOT

from vevents import _ffi

HEADERS = [
    (ROOT / "csrc" / "include" / "vevents" / name).read_text(encoding="utf-8")
    for name in ("vevents.h", "event.h")
]
PLAIN = "".join(re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL) for header in HEADERS)
# What is `static inline` is for C alone.
FUNCTIONS = sorted(set(re.findall(r"^VEV_API[^;]*?\b(vev_\w+)\(", PLAIN, flags=re.MULTILINE)))
CONSTANTS = {name: int(value) for name, value in re.findall(r"\b(VEV_\w+)\s*=\s*(-?\d+)", PLAIN)}
ERRORS = sorted(name for name in CONSTANTS if name.startswith("VEV_E_"))


@pytest.fixture(scope="module")
def core():
    return importlib.import_module("vevents._core")


def test_the_header_was_read():
    assert "vev_log_append" in FUNCTIONS
    assert CONSTANTS["VEV_OK"] == 0
    assert len(ERRORS) >= 10


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_the_header_is_in_the_extension(core, name):
    assert callable(getattr(core.lib, name))


def test_every_constant_of_the_header_has_its_value_in_the_extension(core):
    assert {name: getattr(core.lib, name) for name in CONSTANTS} == CONSTANTS


def test_the_extension_has_nothing_that_the_header_has_not(core):
    names = {name for name in dir(core.lib) if name.lower().startswith("vev")}

    assert names == {*FUNCTIONS, *CONSTANTS}


def test_the_declarations_are_cut_from_the_header_and_not_kept_twice():
    spec = importlib.util.spec_from_file_location("gen_cdef", ROOT / "tools" / "gen_cdef.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    cdef = "".join(map(tool.cdef_from_header, HEADERS))

    assert sorted(set(re.findall(r"\b(vev_\w+)\(", cdef))) == FUNCTIONS
    assert "VEV_API" not in cdef
    assert "/*" not in cdef
    (own,) = [path for path in PACKAGE.rglob("*") if path.suffix in (".cdef", ".h")]
    assert not re.findall(r"\bvev_\w+\(", tool.cdef_from_header(own.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ERRORS)
def test_every_status_becomes_an_exception_with_a_sentence(core, name):
    status = CONSTANTS[name]

    with pytest.raises(Exception, match=r"\w+ \w+") as caught:
        _ffi.check(status, "log")

    assert type(caught.value) is not Exception
    assert type(caught.value).__module__ in ("vevents.errors", "builtins")
    sentence = core.ffi.string(core.lib.vev_strerror(status)).decode()
    unknown = core.ffi.string(core.lib.vev_strerror(-9999)).decode()
    assert sentence != unknown


def test_success_is_no_exception():
    _ffi.check(CONSTANTS["VEV_OK"], "log")


def test_an_errno_becomes_an_oserror_of_its_kind():
    import errno

    with pytest.raises(FileNotFoundError) as caught:
        _ffi.check(errno.ENOENT, "log")

    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == "log"


def test_the_manual_map_of_symbols_lets_out_the_header_and_nothing_more():
    symbols = (ROOT / "csrc" / "vevents.map").read_text(encoding="utf-8")

    assert re.search(r"global:\s*vev_\*;", symbols)
    assert re.search(r"local:\s*vev__\*;\s*\*;", symbols)
