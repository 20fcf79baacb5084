"""The software bill of materials, CycloneDX 1.6 as JSON: sbom.py [FILE]

    VERSION, pyproject.toml                     vevents and the Python packages that it asks for
    csrc/third_party/*/README                   what is compiled into it

Python packages are named with the range that is asked for; which version is installed is for the
device to say. Needs nothing but Python. SOURCE_DATE_EPOCH fixes the time that it states.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
THIRD_PARTY = ROOT / "csrc" / "third_party"

# A line of the table in a vendored part's README: "version   1.5.7".
ROW = re.compile(r"^(version|licence|sha256) +(.+)$", re.MULTILINE)
# What the README need not say: how scanners know it.
KNOWN_AS = {
    "zstd": {
        "purl": "pkg:github/facebook/zstd@v{version}",
        "cpe": "cpe:2.3:a:facebook:zstandard:{version}:*:*:*:*:*:*:*",
    }
}


def vendored() -> Iterator[dict[str, Any]]:
    """Yield a component for each folder of csrc/third_party, from the table in its README."""
    for readme in sorted(THIRD_PARTY.glob("*/README")):
        name = readme.parent.name
        table = {key: value.split() for key, value in re.findall(ROW, readme.read_text())}
        [version] = table["version"]
        license_id, license_file = table["licence"]
        digest, file = table["sha256"]
        license_text = readme.with_name(license_file.strip("()")).read_text()
        yield {
            "type": "library",
            "bom-ref": name,
            "name": name,
            "version": version,
            "scope": "required",
            "licenses": [{"license": {"id": license_id, "text": {"content": license_text}}}],
            "properties": [
                {"name": "vevents:vendored", "value": f"csrc/third_party/{name}/{file}"},
                {"name": "vevents:vendored:sha256", "value": digest},
            ],
        } | {key: form.format(version=version) for key, form in KNOWN_AS.get(name, {}).items()}


def asked_for(project: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a component for each Python package that `project` asks for, extras included."""
    ranges: dict[str, dict[str, str]] = {}  # name: extra or "": range
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    for extra, requirements in groups.items():
        for requirement in requirements:
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert match, requirement
            name = re.sub(r"[-_.]+", "-", match[0]).lower()
            if name != project["name"]:  # an extra that takes another one of ours with it
                ranges.setdefault(name, {})[extra] = requirement
    for name, by_extra in sorted(ranges.items()):
        yield {
            "type": "library",
            "bom-ref": f"pypi-{name}",
            "name": name,
            "purl": f"pkg:pypi/{name}",
            "scope": "required" if "" in by_extra else "optional",
            "properties": [
                {"name": "vevents:requirement", "value": f"{extra}: {wanted}" if extra else wanted}
                for extra, wanted in by_extra.items()
            ],
        }


def bill() -> dict[str, Any]:
    """Return the whole document."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = (ROOT / "VERSION").read_text().strip()
    components = [*vendored(), *asked_for(project)]
    own = {
        "type": "library",
        "bom-ref": "vevents",
        "name": project["name"],
        "version": version,
        "description": project["description"],
        "supplier": {"name": "The vevents authors"},
        "licenses": [{"license": {"id": project["license"]}}],
        "purl": f"pkg:pypi/{project['name']}@{version}",
    }
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(seconds), UTC) if seconds else datetime.now(UTC)
    content = {
        "metadata": {
            "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "vevents tools/sbom.py"}]},
            "component": own,
        },
        "components": components,
        "dependencies": [
            {"ref": "vevents", "dependsOn": [one["bom-ref"] for one in components]},
            *({"ref": one["bom-ref"]} for one in components),
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    } | content


def text() -> str:
    """Return the document as the text of a file."""
    return json.dumps(bill(), indent=2) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text())
    else:
        sys.stdout.write(text())
