"""Unpacking a bundle: one event with its images in a tar or gzipped tar."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vevents.emulator.bodies import RequestRefusedError, gunzip, parse_json
from vevents.emulator.images import ACCEPTED_FORMATS, image_mime
from vevents.emulator.storage import NewImage
from vevents.emulator.validation import Problem, first_problem

_GZIP_START = b"\x1f\x8b"
_MEMBER_COUNT_MAX = 10_000
_FILE_FIELDS = (("file", "sourceId"), ("inputFile", "inputSourceId"))
_ID_AND_FILE_FIELDS = frozenset(name for pair in _FILE_FIELDS for name in pair)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle held.

    Attributes:
        event: The event as for POST /vision-events: its images name the `source_id` of `images`.
        images: The images that it names, one per member of the archive.
        problems: What is wrong with its images; the rest of the event is still to be judged.
    """

    event: dict[str, Any]
    images: Sequence[NewImage]
    problems: Sequence[Problem]


def unpack_bundle(
    archive: bytes, *, use_case_id: str | None, unpacked_size_max: int, image_size_max: int
) -> Bundle:
    """Read an archive.

    Args:
        archive: Tar, gzipped or not.
        use_case_id: Wins over the one inside.
        unpacked_size_max: Bytes of the tar.
        image_size_max: Bytes of one image.

    Raises:
        RequestRefusedError: 400 for what is no bundle of version 1 or has no use case, 413 for
            what is too large.
    """
    if archive.startswith(_GZIP_START):
        archive = gunzip(archive, unpacked_size_max, what="the bundle")
    members = _members(archive)
    if "payload.json" not in members:
        raise RequestRefusedError(400, "the bundle has no payload.json")
    payload = parse_json(members["payload.json"], what="payload.json")
    problem = first_problem("bundle", payload)
    if problem is not None:
        raise RequestRefusedError(400, f"payload.json: {problem}")
    event = {key: value for key, value in payload.items() if key != "bundleFormatVersion"}
    if use_case_id is not None:
        event["useCaseId"] = use_case_id
    if "useCaseId" not in event:
        raise RequestRefusedError(
            400, "useCaseId: is neither in the bundle nor in the query of the request"
        )
    return _resolve(event, members, image_size_max)


def _members(archive: bytes) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            for count, member in enumerate(tar):
                if count >= _MEMBER_COUNT_MAX:
                    raise RequestRefusedError(
                        400, f"the bundle has more than {_MEMBER_COUNT_MAX} members"
                    )
                # Directories and unknown top-level names are no error; links are no content.
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    members[member.name.removeprefix("./")] = content.read()
    # tarfile also lets errors of its number parsing through when a header is damaged.
    except (tarfile.TarError, ValueError, OverflowError, EOFError, IndexError) as broken:
        raise RequestRefusedError(
            400, f"the bundle is not a valid tar archive: {broken}"
        ) from broken
    return members


def _resolve(event: dict[str, Any], members: dict[str, bytes], image_size_max: int) -> Bundle:
    """Give every named member a source id, and the event's images those instead of files."""
    images: dict[str, NewImage] = {}
    problems: list[Problem] = []
    entries: list[Any] = []
    for index, entry in enumerate(event["images"]):
        if not isinstance(entry, dict):
            entries.append(entry)
            continue
        resolved = {key: value for key, value in entry.items() if key not in _ID_AND_FILE_FIELDS}
        for file_field, id_field in _FILE_FIELDS:
            if file_field in entry:
                name = entry[file_field]
                if not isinstance(name, str):
                    found: NewImage | str = "must be the name of a member of the archive"
                else:
                    found = images.get(name) or _image(name, members, image_size_max)
                if isinstance(found, str):
                    problems.append(Problem(f"images[{index}].{file_field}", found))
                    continue
                images[name] = found
                resolved[id_field] = found.source_id
        entries.append(resolved)
    return Bundle({**event, "images": entries}, list(images.values()), problems)


def _image(name: str, members: dict[str, bytes], image_size_max: int) -> NewImage | str:
    """Return the image, or what is wrong with it."""
    data = members.get(name)
    if data is None:
        return f"{name[:100]!r} is not in the archive"
    if len(data) > image_size_max:
        raise RequestRefusedError(413, f"{name[:100]} is larger than {image_size_max} bytes")
    mime = image_mime(data)
    if mime is None:
        return f"{name[:100]!r} is not {ACCEPTED_FORMATS}"
    return NewImage(data, mime, name=name)
