"""Stopped by a signal, killed, or left with a damaged state: the same weights in the end."""

import json
import multiprocessing
import os
import signal
import time

import pytest
import torch

from lowbit.common.preemption import Preempted
from lowbit.pretrain import Recipe, run
from lowbit.pretrain.trainer import Trainer
from tests.small_digits import NAME as SMALL_DIGITS

FIELDS = {
    "architecture": "resnet10_slim",
    "dataset": SMALL_DIGITS,
    "image_size": 8,
    "batch_size": 32,
    "dim": 16,
    "hidden_dim": 8,
    "epochs": 2,
    "checkpoint_every": 1,
    "device": "cpu",
    "seed": 3,
}


def _folder(path):
    path.mkdir()
    return path


def _lines(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in _MACHINE} for line in lines]


_MACHINE = ("images_per_s", "peak_memory_mb")


def _signal_at(monkeypatch, *moments, signum=signal.SIGTERM):
    """Send this process a signal in the steps (epoch, position) given, each once."""
    train_epoch = Trainer.train_epoch
    left = list(moments)

    def signalled(self):
        for _ in train_epoch(self):
            if (self.epoch, self.position) in left:
                left.remove((self.epoch, self.position))
                os.kill(os.getpid(), signum)
            yield

    monkeypatch.setattr(Trainer, "train_epoch", signalled)


@pytest.mark.parametrize(
    "fields",
    [
        {"pairing": "ssql", "accumulate": 2, "channels_last": True, "nesterov": True},
        {"framework": "moco_v2", "queue_size": 75, "optimizer": "adamw", "schedule": "step"},
    ],
    ids=["ssql", "moco_v2"],
)
def test_a_run_stopped_in_mid_epoch_ends_in_the_same_bytes(tmp_path, monkeypatch, fields):
    recipe = Recipe(**{**FIELDS, **fields})
    whole, cut = _folder(tmp_path / "whole"), _folder(tmp_path / "cut")
    expected = run(recipe, whole)
    _signal_at(monkeypatch, (0, 3), (1, 5))
    for place in ("after step 3 of 8 in epoch 1", "after step 5 of 8 in epoch 2"):
        with pytest.raises(Preempted, match=place) as caught:
            run(recipe, cut)
        assert caught.value.code == 75
        assert not (cut / "checkpoint.pth").exists()
        torch.manual_seed(0)  # whatever happens in between
    assert run(recipe, cut) == expected
    assert (cut / "checkpoint.pth").read_bytes() == (whole / "checkpoint.pth").read_bytes()
    assert _lines(cut) == _lines(whole)


def test_a_signal_in_the_last_step_of_an_epoch_waits_for_its_end(tmp_path, monkeypatch):
    _signal_at(monkeypatch, (0, 8))
    with pytest.raises(Preempted, match="after step 0 of 8 in epoch 2"):
        run(Recipe(**FIELDS), tmp_path)
    assert [line["epoch"] for line in _lines(tmp_path)] == [1]


def test_a_signal_in_the_last_step_of_all_is_too_late(tmp_path, monkeypatch):
    _signal_at(monkeypatch, (1, 8))
    assert run(Recipe(**FIELDS), tmp_path)["details"]["last"]["epoch"] == 2


def test_signal_handlers_are_as_before(tmp_path, monkeypatch):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    _signal_at(monkeypatch, (0, 1), signum=signal.SIGUSR1)
    with pytest.raises(Preempted, match=f"signal {signal.SIGUSR1:d}"):
        run(Recipe(**FIELDS), tmp_path)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_a_lost_loss_is_not_saved_by_a_signal(tmp_path, monkeypatch):
    _signal_at(monkeypatch, (0, 2))
    step = Trainer._step

    def poisoned(self, batches):
        step(self, batches)
        self.record._rows[-1].fill_(float("nan"))

    monkeypatch.setattr(Trainer, "_step", poisoned)
    with pytest.raises(FloatingPointError, match="nan at step 1 of 8"):
        run(Recipe(**FIELDS), tmp_path)
    assert not (tmp_path / "last.pth").exists()


def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path):
    """SIGKILL from outside, at any instant after the second state."""
    recipe = Recipe(**{**FIELDS, "epochs": 40})
    cut = _folder(tmp_path / "cut")
    process = multiprocessing.get_context("fork").Process(target=run, args=(recipe, cut))
    process.start()
    while not (cut / "last.1.pth").is_file() and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    state = torch.load(cut / "last.pth", weights_only=True)["trainer"]
    done = state["epoch"]
    assert 2 <= done < 40
    # The schedule looks at all epochs, so the run that was not killed stops at the same place.
    found = _epochs(recipe, cut, until=done + 1)
    assert found == _epochs(recipe, _folder(tmp_path / "whole"), until=done + 1)


def _epochs(recipe, folder, *, until):
    """Train until so many epochs are done, and return the weights' bytes."""
    with pytest.MonkeyPatch.context() as patch:
        _signal_at(patch, (until - 1, 8))
        with pytest.raises(Preempted):
            run(recipe, folder)
    weights = torch.load(folder / "last.pth", weights_only=True)["trainer"]["framework"]
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def test_a_damaged_state_costs_the_epochs_since_the_one_before(tmp_path, monkeypatch, caplog):
    recipe = Recipe(**FIELDS, keep_checkpoints=2)
    expected = run(recipe, tmp_path)
    checkpoint = (tmp_path / "checkpoint.pth").read_bytes()
    with (tmp_path / "last.pth").open("r+b") as file:
        file.truncate(5000)
    trained = []
    train_epoch = Trainer.train_epoch
    monkeypatch.setattr(
        Trainer, "train_epoch", lambda self: trained.append(self.epoch) or train_epoch(self)
    )
    assert run(recipe, tmp_path) == expected
    assert trained == [1] and "last.pth is damaged" in caplog.text
    assert (tmp_path / "checkpoint.pth").read_bytes() == checkpoint
