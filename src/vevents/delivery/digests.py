"""What is known of frames by their content, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict

_REMEMBERED_MAX = 65_536


class Digests:
    """Texts by digest; the ones not used for longest are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, str] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def get(self, digest: bytes) -> str | None:
        """Return what is known of a frame, or None."""
        value = self._known.get(digest)
        if value is not None:
            self._known.move_to_end(digest)
        return value

    def forget(self, digest: bytes) -> None:
        """Know nothing of a frame any more."""
        self._known.pop(digest, None)

    def put(self, digest: bytes, value: str) -> None:
        """Know this of a frame."""
        self._known[digest] = value
        self._known.move_to_end(digest)
        if len(self._known) > _REMEMBERED_MAX:
            self._known.popitem(last=False)
