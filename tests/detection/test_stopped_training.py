"""Told to stop at any iteration, each engine saves, leaves, and goes on to the same bits."""

import os
import signal

import pytest
import torch

from lowbit.common.preemption import Preempted
from lowbit.detection import run
from lowbit.detection.detector.detector_file import read_detector
from tests.detection.stopping import signal_in

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # in Detectron2's anchors

# In the first iteration, one that is scored, the next, one with a state, and the last of all.
STOPS = (1, 2, 3, 4, 8)


@pytest.mark.parametrize("method", ["fp", "sgdt"])
def test_a_stopped_run_ends_in_the_same_bits(method, make_method_recipe, tmp_path, monkeypatch):
    recipe = make_method_recipe(method, iterations=8, checkpoint_every=4, evaluate_at=(2,))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    straight = run(recipe, whole)
    begun = signal_in(monkeypatch, recipe.engine, STOPS)
    for stop in STOPS:
        with pytest.raises(Preempted, match=f"after iteration {stop} of 8; .*the state") as caught:
            run(recipe, cut)
        assert caught.value.code == os.EX_TEMPFAIL
        assert not (cut / "detector.pth").exists()
    resumed = run(recipe, cut)
    assert begun == list(range(1, 9))  # none twice
    states = [read_detector(f / "detector.pth", engine=recipe.engine)[0] for f in (whole, cut)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert straight["measurements"] == resumed["measurements"]
    assert straight["details"] == resumed["details"]
    lines = [(folder / "metrics.jsonl").read_text() for folder in (whole, cut)]
    assert lines[0] == lines[1]
    left = [sorted(path.name for path in folder.glob("*.pth")) for folder in (whole, cut)]
    assert set(left[0]) <= set(left[1])
    assert set(left[1]) - set(left[0]) <= {"model_0000007.pth"}  # of the stop in the last iteration
    if recipe.engine == "detectron2":
        newest = [(folder / "last_checkpoint").read_text() for folder in (whole, cut)]
        assert newest == ["model_final.pth"] * 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGUSR1])
def test_other_signals_stop_it_too_and_handlers_are_as_before(
    signum, make_method_recipe, tmp_path, monkeypatch
):
    recipe, before = make_method_recipe("fp"), signal.getsignal(signum)
    signal_in(monkeypatch, recipe.engine, [2], signum)
    with pytest.raises(Preempted, match=f"signal {signum:d} after iteration 2 of 6"):
        run(recipe, tmp_path)
    assert signal.getsignal(signum) is before
