"""Work spread over processes, with the worker's own error reaching the user."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import wait as wait_for_connection
from typing import TypeVar

from voxelseg.errors import DataError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def interrupts_left_to_parent() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C, which a terminal sends to all: their parent says when they end.

    A blocked signal stays blocked in a new process from its first moment on, so none dies of it, with a traceback of
    its own, while it still imports. Ctrl-C in the meantime reaches the parent afterwards. No effect on Windows.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # its start, which comes with the first process, would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(*_: object) -> None:
    """Let this process end as soon as its parent does, however that ended; for workers to call when they start.

    Without it, workers of a killed process wait for work for ever, with all their memory.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait_for_connection([sentinel])
    os._exit(1)


def attempt(function: Callable[[Item], Result], item: Item) -> Result | DataError:
    """`function(item)`, or the DataError that it raised: one bad item does not stop the work on the others."""
    try:
        return function(item)
    except DataError as error:
        return error


def raise_together(errors: Sequence[DataError], *, total: int, verb: str) -> None:
    """DataError that lists all `errors`, if there are any; "2 of 9 cases could not be <verb>"."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        listed = "\n  ".join(sorted(str(error) for error in errors))
        raise DataError(f"{len(errors)} of {total} cases could not be {verb}:\n  {listed}")


def map_unordered(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, name: Callable[[Item], str] = str
) -> Iterator[tuple[int, Result]]:
    """Yield (index of the item, function(item)) as results arrive; in this process if `workers` is below 2.

    At most two items per worker are in flight, so results do not pile up. `function`, items and results must be
    picklable. An exception in a worker is raised here as it is; a worker that dies (out of memory, killed) raises
    WorkerError naming, by `name`, the items that were in work. Ctrl-C, and leaving the loop early, stop the workers in
    the middle of their items, so `function` must write atomically.
    """
    if workers < 2 or len(items) < 2:
        for position, item in enumerate(items):
            yield position, function(item)
        return
    in_flight: dict[Future[Result], int] = {}
    upcoming = iter(range(len(items)))
    try:
        with _pool_of(min(workers, len(items))) as pool:
            while True:
                with interrupts_left_to_parent():
                    for position in islice(upcoming, 2 * workers - len(in_flight)):
                        in_flight[pool.submit(function, items[position])] = position
                if not in_flight:
                    return
                done, _ = wait(in_flight, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    yield in_flight.pop(future), result
    except BrokenProcessPool as error:
        lost = sorted(position for future, position in in_flight.items() if not future.done() or future.exception())
        raise WorkerError(
            "a worker process died without an error of its own, which mostly means that the memory ran out. "
            f"In work were: {', '.join(name(items[position]) for position in lost)}. "
            f"Try fewer workers (--workers 1). {_MAIN_GUARD}"
        ) from error


def call_in_process(function: Callable[[Item], Result], item: Item) -> Result:
    """`function(item)`, called in a process of its own; WorkerError if that process dies.

    `function`, `item` and the result must be picklable. An exception of `function` is raised here as it is.
    """
    try:
        with _pool_of(1) as pool:
            with interrupts_left_to_parent():
                future = pool.submit(function, item)
            return future.result()
    except BrokenProcessPool as error:
        raise WorkerError(f"a worker process died without an error of its own. {_MAIN_GUARD}") from error


_MAIN_GUARD = (
    'In a script of your own, start work under if __name__ == "__main__": only, since every worker reads the script '
    "first."
)


@contextmanager
def _pool_of(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this one. After an error their work is awaited, after Ctrl-C they are terminated."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent)
    await_work = True
    try:
        yield pool
    except (KeyboardInterrupt, GeneratorExit):  # GeneratorExit: Ctrl-C, or an error, in the loop over the results
        await_work = False
        for process in list(pool._processes.values()):  # terminate_workers comes with Python 3.14
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=await_work)  # Python 3.11 cannot cancel what it marks as lost as well
