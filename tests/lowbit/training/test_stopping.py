"""A training told to stop takes its step to the end, with what its data loader's workers make."""

import multiprocessing
import os
import subprocess

import pytest
import torch
from torch.utils.data import DataLoader

from lowbit.common.preemption import Preempted, obey_parent_alone
from lowbit.training.stopping import stop_request


def _train(folder):
    """A loop over a worker's batches, all of whose processes are signalled from outside in step 3."""
    torch.set_num_threads(1)
    os.setsid()
    loader = DataLoader(range(20), batch_size=2, num_workers=1, worker_init_fn=obey_parent_alone)
    with stop_request() as stop:
        for step, _ in enumerate(loader):
            stop.begin_step()
            if step == 2:
                group = f"-{os.getpgid(0)}"
                subprocess.run(["kill", "-s", "TERM", "--", group], start_new_session=True)
                assert stop.reached()
        (folder / "state").touch()
        if stop.reached():
            raise stop.preempted(f"after step {step}", folder / "state")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
def test_workers_outlive_a_signal_to_the_whole_job(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_train, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == os.EX_TEMPFAIL and (tmp_path / "state").is_file()


def test_nothing_is_asked_of_one_process_that_was_not_told(tmp_path):
    with stop_request() as stop:
        stop.begin_step()
        assert not stop.reached()
        error = stop.preempted("after epoch 1 of 2", tmp_path / "last.pth")
    assert isinstance(error, Preempted) and error.code == os.EX_TEMPFAIL
    assert f"after epoch 1 of 2; {tmp_path / 'last.pth'} holds the state" in str(error)
