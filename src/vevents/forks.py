"""What a child of fork() must not take over: locks that another thread of its parent held.

Nobody in the child is left to open those. So whoever has locks says here how they are made anew.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

_METHODS: set[weakref.WeakMethod[Callable[[], None]]] = set()


def call_in_children(method: Callable[[], None]) -> None:
    """Have a bound method called in every child that is forked while its object lives."""
    _METHODS.add(weakref.WeakMethod(method, _METHODS.discard))


def _in_child() -> None:
    for reference in list(_METHODS):
        method = reference()
        if method is not None:
            method()


os.register_at_fork(after_in_child=_in_child)
