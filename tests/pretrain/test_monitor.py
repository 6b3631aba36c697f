"""What a run says of itself: lines, TensorBoard, a look at the loss every few steps."""

import json
import logging

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lowbit.pretrain import Recipe, run, running
from lowbit.pretrain.record import Record
from lowbit.pretrain.trainer import Trainer
from lowbit.quant import Precision
from tests.small_digits import NAME as SMALL_DIGITS

RECIPE = {
    "architecture": "resnet10_slim",
    "dataset": SMALL_DIGITS,
    "image_size": 8,
    "batch_size": 32,
    "dim": 16,
    "hidden_dim": 8,
    "device": "cpu",
}


def _events(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_has_what_the_metrics_have(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(Recipe(**RECIPE, pairing="ssql", epochs=2), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    events = _events(tmp_path)
    for line in lines:
        step = line["step"]
        for name in ("loss", "lr", "feature_std", "images_per_s", "peak_memory_mb"):
            assert events[name][step] == pytest.approx(line[name], rel=1e-5)
        for name, value in line["terms"].items():
            assert events[f"terms/{name}"][step] == pytest.approx(value, rel=1e-5)
        assert sum(events[f"bits/{bits}"].get(step, 0) for bits in line["bits"]) == 8
    assert sum("images/s" in record.message for record in caplog.records) == 2


def test_losses_are_looked_at_within_an_epoch(tmp_path, monkeypatch):
    """A loss lost in step 2 stops the run a few steps later, not at the end of the epoch."""
    monkeypatch.setattr(running, "CHECK_EVERY", 2)
    taken = []
    step = Trainer._step

    def poisoned(self, batches):
        step(self, batches)
        taken.append(1)
        if len(taken) == 2:
            self.record._rows[-1].fill_(float("inf"))

    monkeypatch.setattr(Trainer, "_step", poisoned)
    with pytest.raises(FloatingPointError, match="the loss became inf at step 2 of 8") as caught:
        run(Recipe(**RECIPE, epochs=1, pairing="ssql"), tmp_path)
    assert len(taken) == 4  # found when the look after the next came
    assert "bits drawn: " in str(caught.value) and "no state was saved before" in str(caught.value)


def test_glances_leave_a_curve_within_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "CHECK_EVERY", 3)
    run(Recipe(**RECIPE, epochs=2), tmp_path)
    assert sorted(_events(tmp_path)["step/loss"]) == [6, 14]


def test_a_resumed_run_takes_tensorboards_later_steps_back(tmp_path):
    recipe = Recipe(**RECIPE, epochs=2, checkpoint_every=2)
    run(recipe, tmp_path)
    (tmp_path / "last.pth").unlink()
    run(recipe, tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert sorted(_events(tmp_path)["loss"]) == [8, 16]


def test_a_record_says_what_it_saw_before_and_after_a_pause():
    record = Record("sum", 4)
    for value, bits in ((1.0, 4), (2.0, 6)):
        record.add(("a", "b"), torch.tensor([value, 10.0]), (Precision(bits, bits),))
    assert len(record.losses()) == 0  # nothing was asked for yet
    other = Record("sum", 4)
    other.load_state_dict(record.state_dict())
    for it in (record, other):
        it.add(("a", "b"), torch.tensor([3.0, 10.0]), (Precision(4, 4),))
        assert it.metrics() == {
            "loss": 12.0,
            "terms": {"a": 2.0, "b": 10.0},
            "bits": {"4w4a": 2, "6w6a": 1},
        }
        assert it.divergence() is None
    message = record.divergence(finite=False)
    assert message == "weights became infinite or NaN at step 3 of 4 (bits drawn: 4w4a)"
