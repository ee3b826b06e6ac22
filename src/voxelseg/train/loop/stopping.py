"""Ctrl-C between steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests(*, only_once: bool = False) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that a step is never cut in two; the second one interrupts at once.

    With `only_once` further ones are ignored: batch systems and `torchrun`, which both pass a SIGTERM on to all
    processes, ask twice for the same stop.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        stop.set()
        if not only_once:
            signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
