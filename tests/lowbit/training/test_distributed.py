"""Two processes against one: the same weights, the same decisions, one writer."""

import json
import os
import signal
from itertools import islice

import pytest
import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.common.preemption import Preempted
from lowbit.data.views.training_views import view_source
from lowbit.pretrain import Recipe, building, run, trainer
from lowbit.pretrain.frameworks import create_framework
from lowbit.training import distributed
from tests.forked_ranks import in_processes
from tests.small_digits import NAME as SMALL_DIGITS
from tests.small_digits import small_digits

STILL = {"scale": (1, 1), "ratio": (1, 1), "flip": 0, "jitter_p": 0, "gray_p": 0}
CPU = torch.device("cpu")


def _recipe(**fields):
    base = {
        "architecture": "resnet10_slim",
        "dataset": "digits",
        "image_size": 8,
        "batch_size": 32,
        "dim": 16,
        "hidden_dim": 8,
        "lr": 0.05,
        "epochs": 1,
        "device": "cpu",
        "augmentation": STILL,  # every process sees the views that one would
    }
    return Recipe(**{**base, **fields})


def _unnormalized(module):
    """Replace batch norms, which see other images together in two processes."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, nn.Identity())
        else:
            _unnormalized(child)
    return module


def _two_steps(recipe):
    torch.manual_seed(recipe.seed)
    source = view_source(
        "digits", "train", size=8, augmentation=STILL, rank=distributed.rank(), seed=recipe.seed
    )
    training = trainer.Trainer(recipe, source, device=CPU)
    list(islice(training.train_epoch(), 2))
    training.record.fold()
    state = training.state_dict()
    return training.record.losses(), state["framework"], len(state["processes"])


@pytest.mark.parametrize(
    "fields",
    [
        {"pairing": "ssql"},
        {"framework": "simclr", "optimizer": "lars", "lr": 5.0},
        {"framework": "moco_v2", "optimizer": "adamw", "lr": 2e-3, "queue_size": 48},
        {"framework": "byol", "pairing": "ssql", "accumulate": 2},
    ],
    ids=["ssql", "simclr", "moco_v2", "byol+ssql, accumulated"],
)
def test_two_processes_take_the_steps_of_one(tmp_path, monkeypatch, fields):
    monkeypatch.setattr(
        building, "create_framework", lambda *args: _unnormalized(create_framework(*args))
    )
    monkeypatch.setattr(
        building, "create_backbone", lambda name: _unnormalized(create_backbone(name))
    )
    recipe = _recipe(**fields)
    losses, weights, processes = _two_steps(recipe)
    both = in_processes(_two_steps, recipe, folder=tmp_path)
    assert processes == 1
    start = _start(recipe)
    assert any((weights[name] - start[name]).abs().max() > 1e-3 for name in start)
    for other_losses, other_weights, others in both:
        assert others == 2
        torch.testing.assert_close(other_losses, losses, atol=1e-5, rtol=0)
        for name, tensor in weights.items():
            torch.testing.assert_close(other_weights[name], tensor, atol=1e-5, rtol=0, msg=name)


def _start(recipe):
    torch.manual_seed(recipe.seed)
    source = view_source("digits", "train", size=8, augmentation=STILL)
    return {
        name: tensor.clone()
        for name, tensor in trainer.Trainer(recipe, source, device=CPU)
        .framework.state_dict()
        .items()
        if tensor.is_floating_point() and "q_" not in name
    }


def test_processes_draw_their_own_views_and_the_same_bits(tmp_path):
    """With augmentation on and batch norms, ranks differ in views and agree on all else."""
    (first, weights, _), (second, others, _) = in_processes(
        _two_steps, _recipe(pairing="ssql", augmentation={}), folder=tmp_path
    )
    assert torch.equal(first, second)  # averaged over the processes
    different = {name for name, tensor in weights.items() if not torch.equal(tensor, others[name])}
    assert different == {name for name in weights if "running_" in name}


def _run(recipe, folder):
    return run(recipe, folder)["checkpoint"]["sha256"]


def _run_and_stop_rank_1(recipe, folder):
    """Tell the second process alone to stop in its third step."""
    if distributed.rank() == 1:
        train_epoch = trainer.Trainer.train_epoch

        def stopping(self):
            for _ in train_epoch(self):
                if self.epoch == 1 and self.position == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield

        trainer.Trainer.train_epoch = stopping
    try:
        run(recipe, folder)
    except Preempted as stop:
        return str(stop)


@pytest.fixture
def small_recipe(tmp_path):
    """Four steps an epoch."""
    (tmp_path / "splits").mkdir()
    with small_digits(tmp_path / "splits"):
        yield _recipe(
            dataset=SMALL_DIGITS, pairing="ssql", epochs=2, batch_size=64, augmentation={}
        )


def test_processes_stop_together_and_go_on_to_the_same_weights(tmp_path, small_recipe):
    recipe = small_recipe
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    expected = in_processes(_run, recipe, tmp_path / "whole", folder=tmp_path)
    cut = tmp_path / "cut"
    messages = in_processes(_run_and_stop_rank_1, recipe, cut, folder=tmp_path)
    assert all("after step 3 of 4 in epoch 2" in message for message in messages)
    saved = torch.load(cut / "last.pth", weights_only=True)["trainer"]
    assert (saved["epoch"], saved["position"]) == (1, 3)
    with pytest.raises(ValueError, match="2 processes have trained this run so far, but 1 would"):
        run(recipe, cut)
    assert in_processes(_run, recipe, cut, folder=tmp_path) == expected
    lines = (cut / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]  # one process wrote


def test_a_batch_that_cannot_be_shared_is_refused():
    source = view_source("digits", "train", size=8, augmentation=STILL)
    with pytest.raises(ValueError, match="Make batch_size a multiple of 5"):
        trainer.Trainer(_recipe(accumulate=5), source, device=CPU)


def test_synchronized_norms_are_refused_on_a_cpu(tmp_path):
    (message, _) = in_processes(_refusal, folder=tmp_path)
    assert "sync_bn needs GPUs" in message and "nothing was trained" in message


def _refusal():
    try:
        _two_steps(_recipe(sync_bn=True))
    except ValueError as error:
        return str(error)


def test_average_gradients_is_the_mean_and_keeps_layouts(tmp_path):
    for gradients in in_processes(_averaged, folder=tmp_path):
        assert torch.equal(gradients[0], torch.full((2, 3, 4, 4), 1.5))
        assert gradients[0].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(gradients[1], torch.tensor([0.5, 1.5]))
        assert gradients[2] is None


def _averaged():
    shapes = ((2, 3, 4, 4), (2,), (5,))
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    kernel = torch.full(shapes[0], 1.0 + distributed.rank())
    parameters[0].grad = kernel.contiguous(memory_format=torch.channels_last)
    parameters[1].grad = torch.tensor([0.0, 1.0]) + distributed.rank()
    distributed.average_gradients(parameters)
    return [p.grad for p in parameters]


def test_one_process_needs_no_group():
    assert (distributed.rank(), distributed.size()) == (0, 1)
    value = torch.ones(2)
    assert distributed.mean(value) is value and distributed.gather("x") == ["x"]
