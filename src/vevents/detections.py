"""Detections straight from a detector's arrays: no dict, no Python number on their way.

What the events of a camera have in common is checked and encoded once, here; what differs from
frame to frame goes to C as arrays and comes out as one appended event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Final

from vevents import _ffi, codec
from vevents.errors import ConfigurationError, EventValidationError
from vevents.event import Event, Frame, FrameRef, plain_number
from vevents.log import EventLog

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
else:
    ArrayLike = Any  # for who asks for types at run time

ClassNames = Sequence[str] | Mapping[int, str]

# The event builder takes signed integers alone.
_C_INT_MAX: Final = 2**63 - 1


class DetectionWriter:
    """Appends events of one kind whose detections come as arrays.

    Threads: any number may append at once; each keeps a buffer of its own. Where the other fields
    vary, too (`result="pass"` or `"fail"`), make one writer for each and choose; a writer is small.

    Args:
        log: Where to append; must stay open.
        event: What the events have in common: type, data, metadata, device and so on. Without id,
            time and images; those are made for each event.
        class_names: By class id: a list, or a mapping as Ultralytics has it.
        label: Label of the image, for example the camera's name.

    Raises:
        EventValidationError: A field breaks the contract, or one that differs from event to event
            is given.
        ConfigurationError: numpy is not installed.

    Example:
        >>> import numpy as np
        >>> with EventLog(directory) as log:
        ...     failed = Event.quality_check(result="fail", device_id="press-03")
        ...     writer = DetectionWriter(log, failed, ["burr", "scratch"])
        ...     writer.append(
        ...         np.array([[794.0, 392.0, 831.0, 414.0]]), np.array([0.913]), np.array([0])
        ...     )
        1
    """

    def __init__(
        self,
        log: EventLog,
        event: Event,
        class_names: ClassNames,
        *,
        label: str | None = None,
    ) -> None:
        try:
            import numpy as np
        except ImportError:
            raise ConfigurationError(
                "detections given as arrays need numpy: pip install vevents[arrays]"
            ) from None
        if not isinstance(event, Event):
            raise EventValidationError("event", f"must be an Event, not {type(event).__name__}")
        if not isinstance(log, EventLog):
            raise TypeError(f"log: must be an EventLog, not {type(log).__name__}")
        event.validate()
        for field in ("event_id", "timestamp", "display_image_position"):
            if getattr(event, field) is not None:
                raise EventValidationError(field, "differs from event to event; leave it out here")
        if event.images:
            raise EventValidationError("images", "each event gets its own; leave them out here")
        self._log = log
        self._float32, self._int64 = np.dtype(np.float32), np.dtype(np.int64)
        texts = {
            "use_case_id": event.use_case_id,
            "device_id": event.device_id,
            "stream_id": event.stream_id,
            "workflow_id": event.workflow_id,
            "label": label,
        }
        writer = log.box_writer(
            codec.KIND_OF[event.event_type],
            texts,
            _plain(event.data),
            _plain(event.metadata),
            _by_id(class_names),
        )
        self._append, self._append_rows = writer.append, writer.append_rows

    def append(
        self,
        xyxy: ArrayLike,
        confidence: ArrayLike,
        class_id: ArrayLike,
        *,
        frame: Frame | None = None,
        sync: bool = False,
    ) -> int:
        """Append one event with these detections, at most 1000.

        Fastest with C-contiguous arrays of float32, float32 and int64; anything else is converted.

        Args:
            xyxy: Shape (n, 4): left, top, right, bottom in absolute pixels. Kept as float32.
            confidence: Shape (n,), 0 to 1.
            class_id: Shape (n,), whole numbers that `class_names` has.
            frame: The picture, as `EventLog.append_frame` takes it, or what that returned for it;
                stored whole, whatever the pressure on media.ring.
            sync: As for `EventLog.append`.

        Returns:
            The sequence number.

        Raises:
            EventValidationError: A shape, a box, a confidence or a class is wrong; nothing is
                appended.
            EventTooLargeError, LogFullError, LogDegradedError, OSError: As for `EventLog.append`.
        """
        reference = None if frame is None else self._keep(frame)
        flags = _ffi.APPEND_SYNC if sync else 0
        seq: int | None = self._append(xyxy, confidence, class_id, reference, flags)
        if seq is None:
            arrays = self._converted(xyxy, confidence, class_id)
            seq = self._append(*arrays, reference, flags)
            assert seq is not None
        return seq

    def append_rows(
        self,
        rows: ArrayLike,
        *,
        frame: Frame | None = None,
        sync: bool = False,
    ) -> int:
        """Append one event with the detections of one array: faster than three.

        Ultralytics has it as `Results.boxes.data`, and models that suppress overlaps themselves
        put it out.

        Args:
            rows: Shape (n, 6), n at most 1000: left, top, right, bottom in absolute pixels,
                confidence from 0 to 1, class id. Fastest as C-contiguous float32.
            frame: As for `append`.
            sync: As for `append`.

        Returns:
            The sequence number.

        Raises:
            EventValidationError: The shape, a box, a confidence or a class is wrong (a tracker's
                rows have 7 columns); nothing is appended.
            EventTooLargeError, LogFullError, LogDegradedError, OSError: As for `append`.

        Example:
            >>> with EventLog(directory) as log:
            ...     writer = DetectionWriter(log, Event.custom(value="seen"), ["burr", "scratch"])
            ...     writer.append_rows([[794.0, 392.0, 831.0, 414.0, 0.913, 0]])
            1
        """
        reference = None if frame is None else self._keep(frame)
        flags = _ffi.APPEND_SYNC if sync else 0
        seq: int | None = self._append_rows(rows, reference, flags)
        if seq is None:
            array = self._array(rows, self._float32, "rows")
            if array.size and (array.ndim != 2 or array.shape[1] != 6):
                raise EventValidationError("rows", f"must have shape (n, 6); has {array.shape}")
            seq = self._append_rows(array.reshape(-1, 6), reference, flags)
            assert seq is not None
        return seq

    def _keep(self, frame: Frame) -> tuple[int, bytes, int]:
        ref = frame if isinstance(frame, FrameRef) else self._log.append_frame(frame)
        return ref.seq, ref.digest, ref.size

    def _converted(
        self, xyxy: ArrayLike, confidence: ArrayLike, class_id: ArrayLike
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return contiguous arrays of the right types and shapes."""
        boxes = self._array(xyxy, self._float32, "xyxy")
        scores = self._array(confidence, self._float32, "confidence")
        ids = self._array(class_id, self._int64, "class_id")
        count = scores.size
        shaped = scores.ndim == 1 and ids.shape == scores.shape and boxes.shape == (count, 4)
        if not shaped and not boxes.size == scores.size == ids.size == 0:
            raise EventValidationError(
                "xyxy, confidence, class_id",
                f"must have shapes (n, 4), (n,), (n,); have {boxes.shape}, {scores.shape}, "
                f"{ids.shape}",
            )
        return boxes.reshape(count, 4), scores.reshape(count), ids.reshape(count)

    def _array(self, given: ArrayLike, dtype: Any, name: str) -> NDArray[Any]:
        import numpy as np

        try:
            array = np.asarray(given)
        except (TypeError, ValueError) as error:
            raise EventValidationError(name, f"must be an array of numbers: {error}") from error
        if array.dtype.kind not in "fiu":
            raise EventValidationError(name, f"must be an array of numbers, not of {array.dtype}")
        # What cannot be cast is refused below or in C; numpy's warning would be a second message.
        with np.errstate(invalid="ignore", over="ignore"):
            converted = np.require(array, dtype, ["C", "A"]).reshape(array.shape)
        if dtype is self._int64 and not np.array_equal(converted, array):
            raise EventValidationError(name, "must be whole numbers")
        return converted


def _plain(fields: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return fields as the encoder of events writes them: an integer of numpy is no float."""
    plain = {}
    for key, value in (fields or {}).items():
        number = value if isinstance(value, str | bool) else plain_number(value)
        if isinstance(number, int) and number > _C_INT_MAX:
            raise EventValidationError(key, "must be less than 2^63 here")
        plain[key] = number
    return plain


def check_class_names(class_names: object) -> None:
    """Check that class names are in an order, or a mapping; what they are is checked where used.

    Raises:
        EventValidationError: They are not: a text, a set, a generator.
    """
    ordered = isinstance(class_names, Iterable) and hasattr(class_names, "__getitem__")
    if not ordered or isinstance(class_names, str | bytes):
        raise EventValidationError(
            "class_names",
            f"must be a list, or a mapping by class id, not {type(class_names).__name__}",
        )


def _by_id(class_names: ClassNames) -> list[str | None]:
    check_class_names(class_names)
    if not isinstance(class_names, Mapping):
        return list(class_names)
    if any(not isinstance(key, Integral) or not 0 <= key < 1_000_000 for key in class_names):
        raise EventValidationError("class_names", "the ids must be whole numbers from 0 to 999999")
    return [class_names.get(i) for i in range(max(class_names, default=-1) + 1)]
