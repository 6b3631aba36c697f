"""Signals are noted within a block, and mean what they did before around it."""

import os
import signal
import threading

import pytest

from lowbit.common.preemption import SIGNALS, Preempted, stop_requests


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_noted_and_nothing_else_happens(signum):
    before = signal.getsignal(signum)
    with stop_requests() as stop:
        assert not stop
        os.kill(os.getpid(), signum)
        assert stop and stop.signum == signum
    assert signal.getsignal(signum) is before


def test_sigterm_again_changes_nothing_and_ctrl_c_again_does():
    with stop_requests() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signum == signal.SIGINT


def test_a_thread_takes_no_signals():
    found = []

    def work():
        with stop_requests() as stop:
            found.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_its_exit_code_says_that_it_wants_to_go_on():
    with pytest.raises(SystemExit, match="saved") as caught:
        raise Preempted("saved")
    assert caught.value.code == os.EX_TEMPFAIL == 75
