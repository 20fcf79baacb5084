"""What is made anew in the child of a fork."""

from __future__ import annotations

import gc
import os

from vevents import forks


class Counter:
    def __init__(self) -> None:
        self.count = 0
        forks.call_in_children(self.renew)

    def renew(self) -> None:
        self.count += 1


def test_a_child_renews_what_lives_once() -> None:
    counter = Counter()

    child = os.fork()
    if child == 0:
        os._exit(counter.count)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert counter.count == 0


def test_what_is_gone_is_forgotten() -> None:
    before = len(forks._METHODS)
    counter = Counter()
    assert len(forks._METHODS) == before + 1
    del counter
    gc.collect()
    assert len(forks._METHODS) == before
