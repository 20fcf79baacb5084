"""One event and its images as the bytes of a tar archive, and back. No files here.

    payload.json            the event as for POST /vision-events, with names of members for images
    images/<id>.<suffix>    its images

Packing is deterministic: the same event with the same frames gives the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from vevents.errors import EventValidationError
from vevents.event import Event, FrameRef, uuid_text
from vevents.frames import SNIFF_SIZE, sniff
from vevents.wire import event_to_json, required_frames

if TYPE_CHECKING:
    from vevents.event import Frame

BUNDLE_SIZE_MAX: Final = 25 * 2**20
"""Bytes of an archive that the API takes."""
PAYLOAD: Final = "payload.json"
_VERSION_KEY: Final = "bundleFormatVersion"
_VERSION: Final = 1
_TOO_LARGE: Final = "bundle-size"
_UNPACKED_SIZE_MAX: Final = 4 * BUNDLE_SIZE_MAX
_PAYLOAD_SIZE_MAX: Final = 32 * 2**20
_MEMBER_COUNT_MAX: Final = 1_000
_GZIP_START: Final = b"\x1f\x8b"
# The keys of a bundle, by those of an event that names files.
_FILE_KEYS: Final = {"file": "frame", "inputFile": "inputFrame"}
_SUFFIXES: Final = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/tiff": "tiff",
    "image/bmp": "bmp",
    "image/heic": "heic",
    "image/avif": "avif",
}


class BundleError(EventValidationError):
    """The bytes are no bundle, or the event in them breaks the contract."""


def pack(
    event: Event,
    frames: Mapping[int, bytes],
    *,
    missing: Mapping[int, str] | None = None,
    use_case_id: str | None = None,
    size_max: int = BUNDLE_SIZE_MAX,
) -> tuple[bytes, int]:
    """Make the archive of an event.

    Frames that make it too large are left out, the largest first, and the event says so: facts
    outlive pixels.

    Args:
        event: A valid event with an id and a timestamp, as `EventLog.decode()` returns it.
        frames: The images by their sequence number in the log. What is not in it is left out.
        missing: Why frames are not in it.
        use_case_id: For an event that names none; without it the bundle names none, either.
        size_max: Bytes of the archive.

    Returns:
        The archive, and how many of the event's frames are not in it.
    """
    frames = dict(frames)
    reasons = dict(missing or {})
    wanted = required_frames(event)
    if event.images and event.display_image_position is None:
        # As the official block has it.
        event = replace(event, display_image_position=0)
    while True:
        archive = _gzip(pieces(event, frames, missing=reasons, use_case_id=use_case_id))
        if len(archive) <= size_max or not frames:
            return archive, len(wanted) - len(frames)
        largest = max(frames, key=lambda seq: len(frames[seq]))
        del frames[largest]
        reasons[largest] = _TOO_LARGE


def pieces(
    event: Event,
    frames: Mapping[int, bytes | memoryview],
    *,
    missing: Mapping[int, str] | None = None,
    use_case_id: str | None = None,
) -> list[bytes | memoryview]:
    """Make the archive of an event, not packed, in pieces that follow each other.

    The frames are among the pieces as they are: nothing is copied. The arguments are those of
    `pack()`.

    Example:
        >>> from datetime import UTC, datetime
        >>> moment = datetime(2026, 10, 1, tzinfo=UTC)
        >>> event = Event.custom(value="open", event_id="door-7", timestamp=moment)
        >>> unpack(b"".join(pieces(event, {}))).event_id
        'door-7'
    """
    assert event.timestamp is not None
    wanted = required_frames(event)
    names = {ref.seq: _member_name(ref, frames[ref.seq]) for ref in wanted if ref.seq in frames}
    named = use_case_id or event.use_case_id
    # The event's JSON wants a use case; a bundle may do without.
    obj = event_to_json(event, source_ids=names, missing=missing, use_case_id=named or "-")
    payload = {
        _VERSION_KEY: _VERSION,
        "eventId": obj.pop("eventId"),
        "eventType": obj.pop("eventType"),
        "timestamp": obj.pop("timestamp"),
        "images": [_with_files(image, set(names.values())) for image in obj.pop("images", [])],
    } | obj
    if named is None:
        del payload["useCaseId"]
    if not payload["eventData"]:
        del payload["eventData"]
    members: dict[str, bytes | memoryview] = {
        PAYLOAD: json.dumps(payload, indent=2, allow_nan=False).encode()
    }
    members |= {names[seq]: frames[seq] for seq in names}
    return _tar(members, int(event.timestamp.timestamp()))


def _member_name(ref: FrameRef, data: bytes | memoryview) -> str:
    mime = sniff(bytes(data[:SNIFF_SIZE]))
    return f"images/{uuid_text(ref.digest)}.{_SUFFIXES.get(mime or '', 'bin')}"


def _with_files(image: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Name members as such; an image that was uploaded already keeps its id."""
    for id_key, file_key in (("inputSourceId", "inputFile"), ("sourceId", "file")):
        if image.get(id_key) in names:
            image = {file_key: image[id_key]} | {k: v for k, v in image.items() if k != id_key}
    return image


def _tar(members: Mapping[str, bytes | memoryview], mtime: int) -> list[bytes | memoryview]:
    made: list[bytes | memoryview] = []
    size = 0
    for name, data in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mtime = mtime
        made += [info.tobuf(), data, bytes(-len(data) % tarfile.BLOCKSIZE)]
        size += sum(map(len, made[-3:]))
    # Two empty blocks end a tar, and it is as long as the records of a tape.
    made.append(bytes(2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE))
    return made


def _gzip(parts: Iterable[bytes | memoryview]) -> bytes:
    buffer = io.BytesIO()
    # Images do not get smaller a second time, so the effort goes into none. No time: the same
    # event gives the same bytes.
    with gzip.GzipFile("", "wb", compresslevel=1, fileobj=buffer, mtime=0) as zipped:
        for part in parts:
            zipped.write(part)
    return buffer.getvalue()


# --- Reading --------------------------------------------------------------------------------


def unpack(archive: bytes) -> Event:
    """Return the event of an archive, with its images as frames.

    Args:
        archive: A tar, gzipped or not, of this program or of Roboflow's block.

    Returns:
        A valid event with id and timestamp; without a use case if the bundle names none.

    Raises:
        BundleError: It is no bundle of version 1, or not a sound one; the error names the field.
    """
    members, payload = read_payload(archive)
    payload = dict(payload)
    del payload[_VERSION_KEY]
    for key in ("eventId", "timestamp"):
        if key not in payload:
            raise BundleError(key, "is missing")
    images = payload.get("images", [])
    if isinstance(images, list):
        payload["images"] = [_with_frames(image, f"images[{i}]") for i, image in enumerate(images)]
    try:
        event = Event.from_json(payload)
    except EventValidationError as error:
        raise BundleError(error.field, error.reason) from error
    images = tuple(
        replace(
            image,
            frame=_content(members, image.frame, f"images[{i}].file"),
            input_frame=_content(members, image.input_frame, f"images[{i}].inputFile"),
        )
        for i, image in enumerate(event.images)
    )
    return replace(event, images=images)


def read_payload(archive: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the members of an archive, and the object in `payload.json`, of a known version.

    Raises:
        BundleError: It is no archive, or not one of a bundle.
    """
    members = _members(archive)
    if PAYLOAD not in members:
        raise BundleError("bundle", f"has no {PAYLOAD}")
    if len(members[PAYLOAD]) > _PAYLOAD_SIZE_MAX:
        raise BundleError(PAYLOAD, f"has more than {_PAYLOAD_SIZE_MAX} bytes")
    try:
        payload = json.loads(members[PAYLOAD], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(PAYLOAD, f"is not JSON: {str(error)[:200]}") from None
    if not isinstance(payload, dict):
        raise BundleError(PAYLOAD, "is no JSON object")
    version = payload.get(_VERSION_KEY)
    if version != _VERSION or isinstance(version, bool):
        raise BundleError(_VERSION_KEY, f"must be {_VERSION}, is {str(version)[:20]}")
    return members, payload


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _with_frames(image: Any, path: str) -> Any:
    if not isinstance(image, dict):
        return image
    for key in _FILE_KEYS.values():
        if key in image:
            raise BundleError(f"{path}.{key}", "is no key of a bundle")
    return {_FILE_KEYS.get(key, key): value for key, value in image.items()}


def _content(members: Mapping[str, bytes], frame: Frame | None, field: str) -> bytes | None:
    if frame is None:
        return None
    # from_json() made a path of the member's name.
    assert isinstance(frame, Path)
    data = members.get(frame.as_posix())
    if data is None:
        raise BundleError(field, f"{frame.as_posix()[:100]!r} is not in the archive")
    return data


def _members(archive: bytes) -> dict[str, bytes]:
    """Return the plain files of an archive; what else there is does not matter."""
    members: dict[str, bytes] = {}
    try:
        if archive.startswith(_GZIP_START):
            archive = _gunzip(archive)
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            for count, member in enumerate(tar):
                if count >= _MEMBER_COUNT_MAX:
                    raise BundleError("bundle", f"has more than {_MEMBER_COUNT_MAX} members")
                # One with holes may be larger than all of memory.
                plain = member.isreg() and not member.issparse()
                content = tar.extractfile(member) if plain else None
                if content is not None:
                    members[str(PurePosixPath(member.name))] = content.read()
    # tarfile lets errors of its number parsing through when a header is damaged.
    except (tarfile.TarError, zlib.error, ValueError, OverflowError, EOFError, IndexError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError("bundle", f"is no sound archive: {str(error)[:200]}") from error
    return members


def _gunzip(data: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    plain = unzip.decompress(data, _UNPACKED_SIZE_MAX)
    if unzip.unconsumed_tail:
        raise BundleError("bundle", f"unpacks to more than {_UNPACKED_SIZE_MAX} bytes")
    if not unzip.eof:
        raise BundleError("bundle", "is cut off")
    return plain
