"""What belongs to a release: one version, a changelog for users, a bill of materials, licences."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import subprocess
import sys
import tomllib

import pytest
from house import ROOT, project_files

import vevents

VERSION = (ROOT / "VERSION").read_text().strip()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ZSTD = ROOT / "csrc" / "third_party" / "zstd"

SECTIONS = {
    "Format and ABI",
    "Added",
    "Changed",
    "Deprecated",
    "Removed",
    "Fixed",
    "Security",
}


def test_the_version_stands_in_one_file_and_reaches_the_package():
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert vevents.__version__ == VERSION
    exempt = {ROOT / "VERSION", ROOT / "CHANGELOG.md"}
    literal = re.compile(rf"(?<![\d.]){re.escape(VERSION)}(?![\d.])")
    for path in project_files():
        if path in exempt or ROOT / "csrc" / "third_party" in path.parents:
            continue
        data = path.read_bytes()
        assert b"\0" in data or not literal.search(data.decode()), path.relative_to(ROOT)


def test_the_changelog_has_the_form_of_keep_a_changelog():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    for heading in versions[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading), heading
    # What was released is written down, and the version that is being made is newer.
    numbers = [tuple(map(int, v[1 : v.index("]")].split("."))) for v in versions[1:]]
    assert numbers == sorted(numbers, reverse=True)
    assert not numbers or numbers[0] <= tuple(map(int, VERSION.split(".")))
    sections = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(sections) <= SECTIONS
    assert "Format and ABI" in sections


def bill(epoch: str = "0"):
    ran = subprocess.run(
        [sys.executable, "tools/sbom.py"],
        cwd=ROOT,
        env={"SOURCE_DATE_EPOCH": epoch},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(ran.stdout)


def test_the_bill_of_materials_names_everything_vendored_with_version_and_licence():
    components = {one["name"]: one for one in bill()["components"]}
    folders = {path.name for path in ZSTD.parent.iterdir()}
    vendored = {
        name
        for name, one in components.items()
        if any(p["name"] == "vevents:vendored" for p in one["properties"])
    }
    assert vendored == folders
    zstd = components["zstd"]
    header = (ZSTD / "zstd.h").read_text()
    major, minor, patch = (
        re.search(rf"#define ZSTD_VERSION_{part} +(\d+)", header)[1]
        for part in ("MAJOR", "MINOR", "RELEASE")
    )
    assert zstd["version"] == f"{major}.{minor}.{patch}"
    assert zstd["purl"].endswith(f"@v{zstd['version']}")
    [license_] = zstd["licenses"]
    assert license_["license"]["id"] == "BSD-3-Clause"
    assert license_["license"]["text"]["content"] == (ZSTD / "LICENSE").read_text()
    properties = {p["name"]: p["value"] for p in zstd["properties"]}
    amalgamation = (ROOT / properties["vevents:vendored"]).read_bytes()
    assert properties["vevents:vendored:sha256"] == hashlib.sha256(amalgamation).hexdigest()


def test_the_bill_of_materials_names_every_python_package_asked_for():
    document = bill()
    own = document["metadata"]["component"]
    assert (own["name"], own["version"]) == (PROJECT["name"], VERSION)
    required = {c["name"] for c in document["components"] if c["scope"] == "required"}
    optional = {c["name"] for c in document["components"] if c["scope"] == "optional"}
    name = re.compile(r"[A-Za-z0-9-]+")
    assert required == {"zstd"} | {name.match(r)[0] for r in PROJECT["dependencies"]}
    extras = {name.match(r)[0] for rs in PROJECT["optional-dependencies"].values() for r in rs}
    assert optional == extras - required - {PROJECT["name"]}
    [root, *leaves] = document["dependencies"]
    assert root["dependsOn"] == [c["bom-ref"] for c in document["components"]]
    assert [leaf["ref"] for leaf in leaves] == root["dependsOn"]


def test_the_bill_of_materials_is_the_same_for_the_same_tree():
    assert bill("1700000000") == bill("1700000000")
    assert bill("1700000000")["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_every_licence_of_a_vendored_part_goes_along():
    licences = {f"{path.relative_to(ROOT)}" for path in ZSTD.parent.glob("*/LICENSE")}
    assert len(licences) == len(list(ZSTD.parent.iterdir()))
    assert set(PROJECT["license-files"]) == {"LICENSE"} | licences


def test_an_archive_without_a_licence_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    check = importlib.import_module("wheels").check_licenses
    complete = ["a/LICENSE", "a/csrc/third_party/zstd/LICENSE"]
    check(complete, "a")
    for missing in complete:
        with pytest.raises(SystemExit, match=f"{missing} is missing"):
            check([name for name in complete if name != missing], "a")


def test_debian_knows_the_library_by_its_soname():
    meson = (ROOT / "csrc" / "meson.build").read_text()
    soversion = re.search(r"soversion: '(\d+)'", meson)[1]
    control = (ROOT / "packaging" / "debian" / "control").read_text()
    packages = re.findall(r"^Package: (.+)$", control, re.MULTILINE)
    assert packages == [f"libvevents{soversion}", "libvevents-dev"]
    for package in packages:
        assert (ROOT / "packaging" / "debian" / f"{package}.install").is_file()
    copyright_ = (ROOT / "packaging" / "debian" / "copyright").read_text()
    unfolded = re.sub(r"^ \.?", "", copyright_, flags=re.MULTILINE)
    for licence in (ROOT / "LICENSE", ZSTD / "LICENSE"):
        words = re.search(r"(Permission|Redistribution) .*", licence.read_text(), re.DOTALL)[
            0
        ].split()
        assert " ".join(words) in " ".join(unfolded.split()), licence
