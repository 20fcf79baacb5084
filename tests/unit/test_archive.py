"""The bytes of a bundle: ours as the contract describes them, and the official block's."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import uuid
from datetime import UTC, datetime

import pytest
from pictures import TURNED_JPEG as JPEG
from pictures import photograph, saved

from vevents import Event, FrameRef, Image, ObjectDetection, frames
from vevents.bundles import BUNDLE_SIZE_MAX, BundleError, pack, unpack

AT = datetime(2026, 8, 21, 12, 0, 0, 123456, UTC)
PNG = saved(photograph(), "PNG")


def ref(seq, data):
    return FrameRef(seq, frames.digest(data), len(data))


def event(*images, **fields):
    values = {"event_id": str(uuid.UUID(int=7)), "timestamp": AT, "value": "door"}
    return Event.custom(images=images, **(values | fields))


def opened(archive):
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        members = tar.getmembers()
        contents = {m.name: tar.extractfile(m).read() for m in members}
    return members, json.loads(contents["payload.json"]), contents


def official(payload, members=(), mode="w:gz"):
    """An archive, made with the calls of the standard library as the block does it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        files = {"payload.json": json.dumps(payload, indent=2).encode()} | dict(members)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = int(AT.timestamp())
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PAYLOAD = {
    "bundleFormatVersion": 1,
    "eventId": "0f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa",
    "eventType": "quality_check",
    "timestamp": "2026-08-21T12:00:00.123456+00:00",
    "images": [
        {
            "file": "images/a.jpg",
            "inputFile": "images/b.jpg",
            "label": "workflow",
            "objectDetections": [
                {"class": "burr", "x": 1.5, "y": 2, "width": 3, "height": 4, "confidence": 0.5}
            ],
        }
    ],
    "eventData": {"result": "fail"},
    "customMetadata": {"line": 3},
    "displayImagePosition": 0,
}
PICTURES = {"images/a.jpg": JPEG, "images/b.jpg": PNG}


def test_a_bundle_has_the_members_and_keys_of_the_contract():
    shown, seen = ref(1, JPEG), ref(2, PNG)
    box = ObjectDetection("burr", 1.5, 2, 3, 4, 0.5)
    image = Image(shown, input_frame=seen, label="workflow", object_detections=[box])

    archive, left_out = pack(event(image, metadata={"line": 3}), {1: JPEG, 2: PNG})

    members, payload, contents = opened(archive)
    assert left_out == 0
    assert members[0].name == "payload.json"
    assert all(m.mtime == int(AT.timestamp()) and m.isreg() for m in members)
    (entry,) = payload["images"]
    assert contents[entry["file"]] == JPEG
    assert contents[entry["inputFile"]] == PNG
    assert entry["file"].startswith("images/")
    assert (entry["file"][-4:], entry["inputFile"][-4:]) == (".jpg", ".png")
    uuid.UUID(entry["file"][7:-4])
    assert not {"sourceId", "inputSourceId"} & entry.keys()
    del entry["file"], entry["inputFile"]
    assert payload == {
        "bundleFormatVersion": 1,
        "eventId": str(uuid.UUID(int=7)),
        "eventType": "custom",
        "timestamp": "2026-08-21T12:00:00.123456+00:00",
        "images": [
            {
                "label": "workflow",
                "objectDetections": PAYLOAD["images"][0]["objectDetections"],
            }
        ],
        "eventData": {"value": "door"},
        "customMetadata": {"line": 3},
        "displayImagePosition": 0,
    }


def test_without_images_and_with_a_use_case():
    _, payload, _ = opened(pack(event(), {})[0])
    assert payload["images"] == []
    assert not {"useCaseId", "displayImagePosition", "customMetadata"} & payload.keys()

    _, payload, _ = opened(pack(event(use_case_id="uc-own"), {}, use_case_id="uc-own")[0])
    assert payload["useCaseId"] == "uc-own"
    _, payload, _ = opened(pack(event(), {}, use_case_id="uc-1")[0])
    assert payload["useCaseId"] == "uc-1"
    _, payload, _ = opened(pack(event(use_case_id="uc-own"), {}, use_case_id="uc-1")[0])
    assert payload["useCaseId"] == "uc-own"


def test_an_image_that_was_uploaded_keeps_its_id():
    image = Image(source_id="ve-img-1", input_frame=ref(1, JPEG))

    _, payload, _ = opened(pack(event(image), {1: JPEG})[0])

    assert payload["images"][0]["sourceId"] == "ve-img-1"
    assert "inputFile" in payload["images"][0]


def test_the_same_event_gives_the_same_bytes():
    image = Image(ref(1, JPEG))

    assert pack(event(image), {1: JPEG}) == pack(event(image), {1: JPEG})


def test_frames_that_are_gone_are_left_out_and_said():
    archive, left_out = pack(event(Image(ref(1, JPEG), label="x")), {}, missing={1: "evicted"})

    _, payload, _ = opened(archive)
    assert left_out == 1
    assert payload["customMetadata"] == {
        "vevents_frames_missing": 1,
        "vevents_frames_missing_reason": "evicted",
    }


def test_a_bundle_is_never_larger_than_the_api_takes():
    import os

    large = [JPEG + os.urandom(size * 1000) for size in (300, 500, 200)]
    images = [Image(ref(i, data), label="x") for i, data in enumerate(large, 1)]
    frames_ = dict(enumerate(large, 1))

    archive, left_out = pack(event(*images), frames_, size_max=600_000)

    _, payload, contents = opened(archive)
    assert (left_out, len(contents)) == (1, 3)
    assert len(archive) <= 600_000
    assert payload["customMetadata"]["vevents_frames_missing_reason"] == "bundle-size"
    assert large[1] not in contents.values()
    exact = len(pack(event(*images), frames_)[0])
    assert pack(event(*images), frames_, size_max=exact)[1] == 0
    assert pack(event(*images), frames_, size_max=exact - 1)[1] == 1
    assert BUNDLE_SIZE_MAX == 26_214_400


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_a_bundle_of_the_official_block_is_read(mode):
    read = unpack(official(PAYLOAD, PICTURES, mode))

    assert (read.event_id, read.timestamp, read.use_case_id) == (PAYLOAD["eventId"], AT, None)
    assert read.images[0].frame == JPEG
    assert read.images[0].input_frame == PNG
    assert read.images[0].object_detections[0].class_name == "burr"
    assert (read.data, read.metadata) == ({"result": "fail"}, {"line": 3})


def test_what_was_packed_is_unpacked():
    given = event(Image(ref(1, JPEG), label="a"), Image(ref(2, PNG)), device_id="d", stream_id="s")

    read = unpack(pack(given, {1: JPEG, 2: PNG})[0])

    assert [image.frame for image in read.images] == [JPEG, PNG]
    assert (read.device_id, read.stream_id, read.data) == ("d", "s", given.data)
    assert (read.event_id, read.timestamp) == (given.event_id, given.timestamp)


def test_unknown_folders_links_and_leading_dots_do_not_matter():
    members = {f"./{name}": data for name, data in PICTURES.items()} | {"videos/a.mp4": b"x"}
    buffer = io.BytesIO(official(PAYLOAD, members, "w"))
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        link = tarfile.TarInfo("images/link.jpg")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        tar.addfile(link)
        folder = tarfile.TarInfo("images")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)

    assert unpack(buffer.getvalue()).images[0].frame == JPEG


def changed(**fields):
    return {k: v for k, v in (PAYLOAD | fields).items() if v is not None}


@pytest.mark.parametrize(
    ("archive", "field"),
    [
        (b"", "bundle"),
        (b"no archive", "bundle"),
        (b"\x1f\x8b no gzip", "bundle"),
        (official(PAYLOAD, PICTURES)[:-20], "bundle"),
        (official(PAYLOAD, PICTURES, "w")[:700], "bundle"),
        (official(changed(bundleFormatVersion=2), PICTURES), "bundleFormatVersion"),
        (official(changed(bundleFormatVersion=True), PICTURES), "bundleFormatVersion"),
        (official(changed(bundleFormatVersion=None), PICTURES), "bundleFormatVersion"),
        (official([], PICTURES), "payload.json"),
        (official({"a": float("nan")}, PICTURES), "payload.json"),
        (official(changed(eventId=None), PICTURES), "eventId"),
        (official(changed(timestamp=None), PICTURES), "timestamp"),
        (official(changed(eventType="defect"), PICTURES), "eventType"),
        (official(changed(images="none"), PICTURES), "images"),
        (official(changed(images=[1]), PICTURES), "images[0]"),
        (official(changed(images=[{"frame": "/etc/passwd"}]), PICTURES), "images[0].frame"),
        (official(changed(images=[{"file": "/etc/passwd"}]), PICTURES), "images[0].file"),
        (official(changed(images=[{"file": "images/c.jpg"}]), PICTURES), "images[0].file"),
        (official(PAYLOAD, {"images/a.jpg": JPEG}), "images[0].inputFile"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_sound_bundle_is_refused_with_its_field(archive, field):
    with pytest.raises(BundleError) as caught:
        unpack(archive)

    assert caught.value.field == field


def test_archives_that_grow_without_end_are_refused():
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    with pytest.raises(BundleError, match="unpacks to more than"):
        unpack(bomb)

    with pytest.raises(BundleError, match="has more than 33554432 bytes"):
        unpack(official(PAYLOAD | {"eventId": "x" * 2**25}))
    many = official(PAYLOAD, {f"images/{i}": b"" for i in range(1001)})
    with pytest.raises(BundleError, match="more than 1000 members"):
        unpack(many)


def test_a_member_that_is_mostly_a_hole_is_not_filled():
    """A few hundred bytes would become 32 TiB, or all of memory."""
    payload = json.dumps(PAYLOAD).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("payload.json")
        info.size = len(payload)
        tar.addfile(info, io.BytesIO(payload))
        info = tarfile.TarInfo(next(iter(PICTURES)))
        info.size = 1
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 45)}
        tar.addfile(info, io.BytesIO(b"x"))

    with pytest.raises(BundleError, match="is not in the archive"):
        unpack(buffer.getvalue())
