import os
import signal

import pytest

from voxelseg.train.loop.stopping import stop_requests


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_interrupt_asks_and_the_second_one_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with stop_requests() as stop:
        assert not stop.is_set()
        interrupt()
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert signal.getsignal(signal.SIGINT) is before


def test_several_processes_are_asked_once_however_often_torchrun_and_a_batch_system_ask():
    before = signal.getsignal(signal.SIGINT)
    with stop_requests(only_once=True) as stop:
        interrupt()
        interrupt()
        assert stop.is_set()
    assert signal.getsignal(signal.SIGINT) is before
