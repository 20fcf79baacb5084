"""Posts events in batches, and finds out which of them the server means when it refuses.

a refused batch    is split until the bad event is alone
a batch too large  is halved, and the later batches of the pass are made no larger
a failing request  may be the fault of one event, so a batch that keeps failing is halved as
                   well; what still fails alone stays pending and is passed over, so that it
                   cannot hold up the events behind it
an image that the server knows no more is uploaded again, once; if that does not help, its
                   event goes without it and says so
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vevents.delivery.client import batch_body
from vevents.delivery.sender import Request
from vevents.errors import NoAnswerError, RefusedError, ServerError

if TYPE_CHECKING:
    from vevents.delivery.api import Api
    from vevents.delivery.client import Client
    from vevents.delivery.images import Images
    from vevents.delivery.items import Item, Reader
    from vevents.delivery.sender import Sender
    from vevents.delivery.verdicts import Verdicts
    from vevents.event import FrameRef

# The API takes 100 events at once. Its limit on a body is not documented.
_BATCH_COUNT_MAX = 100
_BATCH_SIZE_MAX = 5_000_000
# On a slow link a batch goes before it is full, so that events follow their images soon.
_BATCH_AGE_S_MAX = 5.0
# After so many refusals in a row the next event is probably bad as well: halving costs more then.
_REFUSED_IN_A_ROW_MAX = 4
# What a server may say of an event that names an image it does not know.
_MAY_MEAN_IMAGE = frozenset((400, 404, 409, 410, 422))


@dataclass(slots=True)
class _Batch:
    begun_s: float
    items: list[Item] = field(default_factory=list)
    event_ids: set[str] = field(default_factory=set)
    size: int = len(batch_body([]))

    def takes(self, item: Item, size_max: int) -> bool:
        if not self.items:
            return True
        return len(self.items) < _BATCH_COUNT_MAX and self.size + len(item.body) + 1 <= size_max

    def add(self, item: Item) -> None:
        self.items.append(item)
        self.event_ids.add(item.event_id)
        self.size += len(item.body) + 1

    def drop_newest(self) -> None:
        item = self.items.pop()
        self.event_ids.remove(item.event_id)
        self.size -= len(item.body) + 1


class Batches:
    """Posts the events of one pass, one request at a time. For the thread that flushes.

    Args:
        client: The way to the server.
        api: The server.
        sender: Knows the limits of the pass.
        verdicts: Hears what the server said of which event.
        images: Uploads those again that the server knows no more.
        reader: Encodes events whose images became others.
        attempts: How often a request is tried.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        client: Client,
        api: Api,
        sender: Sender,
        verdicts: Verdicts,
        images: Images,
        reader: Reader,
        *,
        attempts: int,
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._api = api
        self._sender = sender
        self._verdicts = verdicts
        self._images = images
        self._reader = reader
        self._attempts = attempts
        self._monotonic = monotonic
        self._batch = _Batch(monotonic())
        self._size_max = _BATCH_SIZE_MAX
        self._refused_in_a_row = 0

    # --- the batch -------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of the events that are ready and not sent yet."""
        return self._batch.size

    def begin(self) -> None:
        """An event is on its way: if it is to be the first of the batch, it ages from now on."""
        if not self._batch.items:
            self._batch.begun_s = self._monotonic()

    def add(self, item: Item) -> None:
        """Take an event that is ready; post what is full or old."""
        # The same id twice in one batch: which of the two the server keeps is not documented.
        if item.event_id in self._batch.event_ids or not self._batch.takes(item, self._size_max):
            self.post()
            if self._verdicts.is_held(item.event_id):
                self._verdicts.pass_over(item.event_id)
                return
        self._batch.add(item)
        self.post_if_old()

    def holds(self, event_id: str) -> bool:
        """Whether an event of this id is ready and not sent yet."""
        return event_id in self._batch.event_ids

    def post_if_old(self) -> None:
        """Post the events that are ready if the first of them has waited long enough."""
        if self._monotonic() - self._batch.begun_s >= _BATCH_AGE_S_MAX:
            self.post()

    def post_what_fits(self) -> None:
        """Post as many of the events that are ready as the limit of bytes allows."""
        while not self._sender.has_room(self._batch.size) and self._batch.items:
            self._batch.drop_newest()
        self.post()

    def post(self) -> None:
        """Post the events that are ready.

        Raises:
            StopError: The pass is over.
        """
        if not self._batch.items:
            return
        self._sender.check_room(self._batch.size)
        items, self._batch = self._batch.items, _Batch(self._monotonic())
        self._post(items, self._attempts)
        self._post_blocked()

    def conclude(self) -> None:
        """Post the last events, and judge those whose refusal was not believed."""
        self.post()
        while self._verdicts.conclude():
            self._post_blocked()

    def _post_blocked(self) -> None:
        for item in self._verdicts.take_blocked():
            self._post_alone(item, self._attempts)

    # --- requests --------------------------------------------------------------------------

    def _post(self, items: Sequence[Item], attempts: int) -> bool:
        """Post events. Returns whether all of them were accepted."""
        items = self._verdicts.without_unknown_default(items)
        if not items:
            return False
        if len(items) == 1:
            return self._post_alone(items[0], attempts)
        bodies = [item.body for item in items]
        size = len(batch_body(bodies))
        try:
            accepted = set(
                self._api.send(
                    Request(
                        lambda within_s: self._client.create_batch(bodies, within_s=within_s),
                        size,
                        attempts,
                    )
                )
            )
        except RefusedError as error:
            if error.status_code == 413:
                self._size_max = max(1, min(self._size_max, size // 2))
                self._post_halves(items, attempts)
            else:
                self._find_refused(items, attempts)
            return False
        except (ServerError, NoAnswerError):
            # Repeating the whole did not help, so each part gets one try.
            self._post_halves(items, 1)
            return False
        self._accept([item for item in items if item.event_id in accepted])
        missing = [item for item in items if item.event_id not in accepted]
        alone = [self._post_alone(item, attempts) for item in missing]
        return all(alone)

    def _post_halves(self, items: Sequence[Item], attempts: int) -> None:
        middle = len(items) // 2
        self._post(items[:middle], attempts)
        self._post(items[middle:], attempts)

    def _find_refused(self, items: Sequence[Item], attempts: int) -> None:
        """Find the bad ones among events that were refused together."""
        while len(items) > 1:
            if self._refused_in_a_row >= _REFUSED_IN_A_ROW_MAX:
                # All of them may be bad, and their halves would be refused as well.
                accepted = self._post([items[0]], attempts)
                items = items[1:]
                if accepted:
                    self._post(items, attempts)
                    return
                continue
            middle = len(items) // 2
            left, right = items[:middle], items[middle:]
            if not self._post(left, attempts):
                self._post(right, attempts)
                return
            # The left half is good, so the bad one is on the right: no need to ask about the whole.
            items = right
        self._post(items, attempts)

    def _post_alone(self, item: Item, attempts: int) -> bool:
        def create(within_s: float | None) -> None:
            accepted = self._client.create_event(item.body, within_s=within_s)
            if accepted != item.event_id:
                raise ServerError(
                    f"the server answered for event {accepted!r} when sent {item.event_id!r}",
                    status_code=201,
                )

        try:
            self._api.send(Request(create, len(item.body), attempts))
        except RefusedError as error:
            suspects = self._suspect_images(item, error)
            if suspects:
                return self._post_with_other_images(item, suspects, attempts)
            self._refused_in_a_row += 1
            self._verdicts.refuse(item, error)
            return False
        except (ServerError, NoAnswerError):
            self._verdicts.pass_over(item.event_id)
            return False
        self._accept([item])
        return True

    def _suspect_images(self, item: Item, error: RefusedError) -> list[FrameRef]:
        """Return the images for which the server may have refused an event.

        These are the ones that it names, and those that were uploaded for something else, perhaps
        long ago.
        """
        images = item.images
        if images is None or error.blocked or error.status_code not in _MAY_MEAN_IMAGE:
            return []
        words = str(error)
        return [
            frame
            for frame in images.frames
            if frame.seq in images.source_ids
            and (frame.seq in images.suspects or images.source_ids[frame.seq] in words)
        ]

    def _post_with_other_images(
        self, item: Item, suspects: Sequence[FrameRef], attempts: int
    ) -> bool:
        """Post an event again, with its images uploaded anew; if they were, without them."""
        images = item.images
        assert images is not None
        if not self._images.renew(images, suspects):
            self._verdicts.pass_over(item.event_id)
            return False
        body = self._reader.encode(images.event, images.source_ids, images.missing)
        return self._post_alone(replace(item, body=body), attempts)

    def _accept(self, items: Sequence[Item]) -> None:
        if items:
            self._refused_in_a_row = 0
            self._verdicts.accept(items)
