import multiprocessing
import os
import signal
import threading
import time

import pytest

from voxelseg.errors import DataError, WorkerError
from voxelseg.parallel import attempt, call_in_process, map_unordered, raise_together


def square(number: int) -> int:
    return number * number


def slow_first(number: int) -> int:
    time.sleep(0.5 if number == 0 else 0)
    return number


def fails_at_3(number: int) -> int:
    if number == 3:
        raise DataError("case 3: truncated")
    return number


def dies_at_2(number: int) -> int:
    if number == 2:
        os._exit(1)
    time.sleep(0.05)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_comes_once_with_its_index(workers: int):
    items = [3, 1, 4, 1, 5]
    assert sorted(map_unordered(square, items, workers=workers)) == [(0, 9), (1, 1), (2, 16), (3, 1), (4, 25)]


def test_no_items_give_no_results():
    assert list(map_unordered(square, [], workers=2)) == []


def test_a_slow_item_does_not_hold_up_the_others():
    assert next(iter(map_unordered(slow_first, [0, 1, 2], workers=2)))[0] != 0


@pytest.mark.parametrize("workers", [1, 2])
def test_the_workers_own_error_is_raised(workers: int):
    with pytest.raises(DataError, match="case 3: truncated"):
        list(map_unordered(fails_at_3, range(6), workers=workers))


def test_a_worker_that_dies_names_what_was_in_work():
    with pytest.raises(WorkerError, match=r"died .*In work were: .*case 2.*--workers 1") as caught:
        list(map_unordered(dies_at_2, range(9), workers=2, name=lambda number: f"case {number}"))
    assert "case 8" not in str(caught.value)  # two items per worker are in flight, the others wait


def slow(number: int) -> int:
    time.sleep(60)
    return number


def test_ctrl_c_does_not_wait_for_the_work_in_flight():
    interrupt = threading.Timer(4, lambda: os.kill(os.getpid(), signal.SIGINT))
    interrupt.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(map_unordered(slow, range(8), workers=2))
    assert time.monotonic() - started < 30  # an item takes 60 s
    assert not multiprocessing.active_children()


def slow_from_1_on(number: int) -> int:
    return slow(number) if number else number


def test_leaving_the_loop_early_does_not_wait_for_the_work_in_flight():
    started = time.monotonic()
    for _, number in map_unordered(slow_from_1_on, range(8), workers=2):
        assert number == 0
        break
    assert time.monotonic() - started < 30  # an item takes 60 s
    assert not multiprocessing.active_children()


def process_id(_: int) -> int:
    return os.getpid()


def test_a_call_in_a_process_of_its_own_gives_its_result_or_its_error():
    assert call_in_process(process_id, 0) != os.getpid()
    with pytest.raises(DataError, match="case 3: truncated"):
        call_in_process(fails_at_3, 3)
    with pytest.raises(WorkerError, match=r"died without an error of its own\. .*__main__"):
        call_in_process(dies_at_2, 2)


def test_attempt_returns_a_data_error_instead_of_raising_it():
    outcome = attempt(fails_at_3, 3)
    assert isinstance(outcome, DataError)
    assert attempt(fails_at_3, 4) == 4


def test_errors_are_raised_together():
    raise_together([], total=9, verb="read")
    with pytest.raises(DataError, match=r"^a$"):
        raise_together([DataError("a")], total=9, verb="read")
    with pytest.raises(DataError, match=r"^2 of 9 cases could not be read:\n  a\n  b$"):
        raise_together([DataError("b"), DataError("a")], total=9, verb="read")
