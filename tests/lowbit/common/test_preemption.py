"""Signals are noted within a block, and mean what they did before around it."""

import multiprocessing
import os
import signal
import subprocess
import threading

import pytest

from lowbit.common.preemption import SIGNALS, Preempted, obey_parent_alone, stop_requests


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


def _echo(connection):
    obey_parent_alone()
    while True:
        connection.send(connection.recv())


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="who sent a signal is not known")
def test_a_worker_ends_when_its_parent_says_so_alone():
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=_echo, args=(theirs,))
    worker.start()
    ours.send(1)
    assert ours.recv() == 1
    for name in ("TERM", "INT", "USR1"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
        ours.send(name)
        assert ours.recv() == name
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0
