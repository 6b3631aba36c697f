"""Number formats and layouts, and parts of a batch, against a loop written by hand."""

import math
from itertools import islice

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lowbit.data.views.training_views import view_source
from lowbit.pretrain import Recipe
from lowbit.pretrain.trainer import Trainer
from lowbit.quant import FP, quantized_layers
from lowbit.training.mixed_precision import MixedPrecision

CPU = torch.device("cpu")
STILL = {"scale": (1, 1), "ratio": (1, 1), "flip": 0, "jitter_p": 0, "gray_p": 0}


def _trainer(**fields):
    base = {
        "architecture": "resnet10_slim",
        "dataset": "digits",
        "image_size": 8,
        "batch_size": 32,
        "dim": 16,
        "hidden_dim": 8,
        "epochs": 4,
        "augmentation": STILL,
    }
    recipe = Recipe(**{**base, **fields})
    torch.manual_seed(recipe.seed)
    source = view_source("digits", "train", size=8, augmentation=recipe.augmentation.model_dump())
    return Trainer(recipe, source, device=CPU)


def _train(trainer, steps):
    list(islice(trainer.train_epoch(), steps))
    trainer.record.fold()
    return trainer.record.losses()


def test_plain_training_is_the_loop_of_the_paper():
    """SimSiam, SGD and a cosine written out; the same weights to the bit but for fused sums."""
    trainer, other = _trainer(schedule="step"), _trainer(schedule="step")
    losses = _train(trainer, 3)
    network = other.framework
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad],
        lr=0.05,
        momentum=0.9,
        weight_decay=5e-4,
    )
    order = torch.randperm(1077, generator=other.streams["order"])
    for index in range(3):
        (batch,) = other.source.epoch(order[None, index * 32 : (index + 1) * 32], 0)
        z1, z2 = (network.embed(batch.view(), FP).z for _ in range(2))
        p1, p2 = network.predictor(z1), network.predictor(z2)
        loss = (
            -(F.cosine_similarity(p1, z2.detach()) + F.cosine_similarity(p2, z1.detach())).mean()
            / 2
        )
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 + math.cos(math.pi * index / (4 * 33))) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert losses[index] == pytest.approx(loss.item(), abs=1e-6)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(trainer.framework.state_dict()[name], tensor, msg=name)


def test_parts_of_a_batch_make_the_same_step():
    """Without the statistics of batch norms, which see a part."""
    found = []
    for parts in (1, 4):
        trainer = _trainer(accumulate=parts)
        for module in trainer.framework.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.eval()
        found.append((_train(trainer, 2), trainer.framework.state_dict()))
    (whole, first), (parted, second) = found
    torch.testing.assert_close(whole, parted, atol=1e-5, rtol=0)
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-5, rtol=1e-4, msg=name)


def test_all_parts_of_a_batch_are_at_the_bits_of_the_step():
    whole, parted = (_trainer(pairing="cq-a", accumulate=parts) for parts in (1, 2))
    layer = list(quantized_layers(parted.framework.encoder).values())[-1]
    bits = []
    layer.register_forward_pre_hook(lambda module, args: bits.append(module.w_quant.bits))
    for trainer in (whole, parted):
        _train(trainer, 2)
    assert whole.record.drawn == parted.record.drawn
    drawn = [2 * [q.weight_bits for q in dict.fromkeys(step)] for step in parted.record.drawn]
    assert bits == drawn[0] + drawn[1]


def test_channels_last_changes_the_layout_and_not_the_numbers():
    plain, last = _trainer(), _trainer(channels_last=True)
    seen = []
    for trainer in (plain, last):
        conv = next(m for m in trainer.framework.modules() if isinstance(m, nn.Conv2d))
        conv.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    torch.testing.assert_close(_train(plain, 1), _train(last, 1), atol=1e-5, rtol=0)
    assert seen[0].is_contiguous() and not seen[-1].is_contiguous()
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)


def test_bf16_computes_networks_in_it_and_everything_else_in_single_precision():
    plain, half = _trainer(pairing="ssql"), _trainer(pairing="ssql", amp="bf16")
    formats = {}
    for name in ("encoder.backbone", "encoder.projector"):
        module = half.framework.get_submodule(name)
        module.register_forward_hook(lambda m, a, out, name=name: formats.update({name: out.dtype}))
    expected, found = _train(plain, 1), _train(half, 1)
    assert formats["encoder.backbone"] == torch.bfloat16
    assert found.dtype == torch.float32 and not torch.equal(expected, found)
    torch.testing.assert_close(expected, found, atol=0.02, rtol=0)
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in half.framework.parameters())


def test_a_step_whose_gradient_overflows_is_skipped_and_counted():
    layer = nn.Linear(2, 1, bias=False)
    arithmetic = MixedPrecision(CPU, amp="fp16")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before = layer.weight.detach().clone()
    for factor, skipped in ((float("inf"), 1), (1.0, 1)):
        optimizer.zero_grad()
        arithmetic.backward(layer(torch.ones(1, 2)).sum() * factor)
        arithmetic.step(optimizer)
        assert arithmetic.skipped == skipped
        assert torch.equal(layer.weight, before) == (factor > 1)
    torch.testing.assert_close(layer.weight.detach(), before - 0.1)  # unscaled again


def test_the_scaler_is_part_of_the_state():
    trainer, other = _trainer(amp="fp16"), _trainer(amp="fp16")
    trainer.arithmetic.scaler.scale(torch.ones(1))  # makes the scale
    trainer.arithmetic.scaler.update(128.0)
    trainer.arithmetic.skipped = 2
    other.load_state_dict(trainer.state_dict())
    assert other.arithmetic.scaler.get_scale() == 128.0 and other.arithmetic.skipped == 2


def test_a_fixed_predictor_rate_stays_while_the_others_falls():
    trainer = _trainer(predictor_lr="fixed", schedule="step", batch_size=512)
    _train(trainer, 2)
    scheduled, fixed = trainer.optimizer.param_groups
    assert fixed["lr"] == 0.05 > scheduled["lr"]
    assert fixed["params"] == list(trainer.framework.predictor.parameters())
    with pytest.raises(ValueError, match="simclr has no predictor; nothing was trained"):
        _trainer(framework="simclr", predictor_lr="fixed")


def test_frameworks_are_told_of_each_optimizer_step(monkeypatch):
    trainer = _trainer(batch_size=512, accumulate=2)
    told = []
    monkeypatch.setattr(trainer.framework, "begin_step", lambda progress: told.append(progress))
    monkeypatch.setattr(trainer.framework, "end_step", lambda: told.append("end"))
    _train(trainer, 2)
    assert told == [0.0, "end", 1 / 8, "end"]
