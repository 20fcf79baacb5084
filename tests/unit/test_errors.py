"""Exceptions go where their programs send them: into other processes, too."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from vevents import Event, errors
from vevents.codec import PayloadError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)] + [PayloadError]


def example(kind: type[Exception]) -> Exception:
    if issubclass(kind, errors.EventValidationError):
        error: Exception = kind("images[0].label", "must be a string")
    elif issubclass(kind, errors.RefusedError):
        error = kind("no", status_code=403, from_api=False, blocked=True)
    elif issubclass(kind, errors.DeliveryError):
        error = kind("not now", status_code=429, retry_after_s=3.0)
    else:
        error = kind("something failed")
    error.add_note("camera 7")
    return error


@pytest.mark.parametrize(
    "again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy]
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_the_same_after_a_journey(
    kind: type[Exception], again: Callable[[Any], Any]
) -> None:
    error = example(kind)

    found = again(error)

    assert type(found) is kind
    assert str(found) == str(error)
    assert vars(found) == vars(error)


def _break_the_contract(_: int) -> None:
    Event.custom(value="x" * 10_001).validate()


def test_a_worker_process_brings_its_error_home() -> None:
    context = multiprocessing.get_context("forkserver")
    with (
        ProcessPoolExecutor(1, context) as pool,
        pytest.raises(errors.EventValidationError, match="at most 10,000") as caught,
    ):
        list(pool.map(_break_the_contract, [1]))
    assert caught.value.field == "eventData.value"
