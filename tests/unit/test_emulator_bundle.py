"""Bundles: archives that hold one event and its images."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import Any

import pytest

from vevents.emulator.bodies import RequestRefusedError
from vevents.emulator.bundle import Bundle, unpack_bundle

JPEG = b"\xff\xd8\xff\xe0" + b"pixels"
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
PAYLOAD = {
    "bundleFormatVersion": 1,
    "eventId": "e-1",
    "eventType": "custom",
    "useCaseId": "uc-inside",
    "timestamp": "2026-10-01T06:14:09.482Z",
    "images": [
        {"file": "images/a.jpg", "inputFile": "images/b.png", "label": "workflow"},
        {"file": "images/a.jpg"},
        {},
    ],
    "displayImagePosition": 0,
}
FILES = {"images/a.jpg": JPEG, "images/b.png": PNG}


def tar(payload: Any = PAYLOAD, files: dict[str, bytes] | None = None) -> bytes:
    members = {} if payload is None else {"payload.json": json.dumps(payload).encode()}
    members |= FILES if files is None else files
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def unpack(archive: bytes, **options: Any) -> Bundle:
    settings = {"use_case_id": None, "unpacked_size_max": 100_000, "image_size_max": 1000}
    return unpack_bundle(archive, **(settings | options))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_become_source_ids(pack: Any) -> None:
    bundle = unpack(pack(tar()))

    first, second = bundle.images
    assert (first.data, first.mime, first.name) == (JPEG, "image/jpeg", "images/a.jpg")
    assert (second.data, second.mime, second.name) == (PNG, "image/png", "images/b.png")
    assert bundle.event["images"] == [
        {"sourceId": first.source_id, "inputSourceId": second.source_id, "label": "workflow"},
        {"sourceId": first.source_id},
        {},
    ]
    assert "bundleFormatVersion" not in bundle.event
    assert bundle.event["useCaseId"] == "uc-inside"
    assert not bundle.problems


def test_the_use_case_of_the_request_wins() -> None:
    assert unpack(tar(), use_case_id="uc-outside").event["useCaseId"] == "uc-outside"


def test_unknown_directories_and_links_are_passed_over() -> None:
    packed = io.BytesIO(tar(files=FILES | {"audio/a.wav": b"RIFF", "images/unused.jpg": b"?"}))
    with tarfile.open(fileobj=packed, mode="a") as archive:
        directory, link = tarfile.TarInfo("video"), tarfile.TarInfo("images/c.jpg")
        directory.type, link.type = tarfile.DIRTYPE, tarfile.SYMTYPE
        link.linkname = "/etc/hostname"
        archive.addfile(directory)
        archive.addfile(link)

    assert len(unpack(packed.getvalue()).images) == 2


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"file": "images/c.jpg"}, "images[0].file: 'images/c.jpg' is not in the archive"),
        ({"inputFile": "images/n.txt"}, "images[0].inputFile: 'images/n.txt' is not JPEG, PNG"),
        ({"file": ["images/a.jpg"]}, "images[0].file: must be the name of a member"),
    ],
)
def test_images_that_are_wrong_are_problems_of_the_event(entry: Any, text: str) -> None:
    payload = PAYLOAD | {"images": [entry]}

    bundle = unpack(tar(payload, FILES | {"images/n.txt": b"hello"}))

    assert [text in str(problem) for problem in bundle.problems] == [True]
    assert not bundle.images


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in PAYLOAD.items() if key != name}


@pytest.mark.parametrize(
    ("archive", "status_code", "text"),
    [
        (b"", 400, "is not a valid tar archive"),
        (b'{"eventId": "e"}' * 100, 400, "is not a valid tar archive"),
        (tar()[:700], 400, "is not a valid tar archive"),
        (gzip.compress(tar())[:-9], 400, "the bundle is not valid gzip data"),
        (gzip.compress(bytes(200_000)), 413, "the bundle unpacks to more than 100000 bytes"),
        (tar(payload=None), 400, "the bundle has no payload.json"),
        (tar(payload=None, files={"payload.json": b"{,}"}), 400, "payload.json is not valid JSON"),
        (tar(payload=[]), 400, "payload.json: must be an object"),
        (tar(payload=without("bundleFormatVersion")), 400, "bundleFormatVersion: is required"),
        (tar(payload=PAYLOAD | {"bundleFormatVersion": 2}), 400, "2 is not one of 1"),
        (tar(payload=without("images")), 400, "images: is required"),
        (tar(payload=without("useCaseId")), 400, "useCaseId: is neither in the bundle nor"),
        (tar(files=FILES | {"images/a.jpg": JPEG * 101}), 413, "is larger than 1000 bytes"),
        (tar(files={f"audio/{n}": b"" for n in range(10_000)}), 400, "more than 10000 members"),
    ],
)
def test_archives_that_are_refused(archive: bytes, status_code: int, text: str) -> None:
    with pytest.raises(RequestRefusedError, match=text) as refused:
        unpack(archive)

    assert refused.value.status_code == status_code
