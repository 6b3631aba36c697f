"""What bits do to a trained network: weight error, then features, then accuracy, as they must.

With n = 2^b - 1 steps over a channel's range 2 max|w|, rounding leaves an error of at most half a
step, max|w| / n, so each bit halves it. To first order the logits' error is linear in it, and an
image keeps its class while twice the error of its logits is below the margin between its two
largest.
"""

import itertools

import numpy as np
import pytest
import torch

from lowbit.data import open_images
from lowbit.quant import FP, quantized_layers, set_precision
from lowbit.transfer import Recipe
from lowbit.transfer.protocols import get_protocol
from lowbit.transfer.scoring.accuracy import accuracy
from lowbit.transfer.workspace import Workspace

BITS = (8, 7, 6, 5, 4, 3, 2)


def _name(bits):
    return f"{bits}w32a"  # weights alone: one cause at a time


@pytest.fixture(scope="module")
def study(tiny_net, see, tmp_path_factory):
    """A small CNN fine-tuned on digits, with its weight and logit errors and accuracy by bits."""
    net = tiny_net()
    recipe = Recipe(
        checkpoint="-",
        protocol="finetune",
        epochs=12,
        lr=0.1,
        batch_size=64,
        augmentation={"flip": 0.0},
        policy={"base": "ssql", "first": "target"},  # no layer stays behind at 8 bits
        precisions=("FP", *map(_name, BITS)),
    )
    workspace = Workspace(tmp_path_factory.mktemp("bits"), key={})
    fitted = get_protocol("finetune").fit(
        net,
        open_images("digits", "train"),
        recipe=recipe,
        workspace=workspace,
        device=torch.device("cpu"),
    )
    val = open_images("digits", "val")
    x = see(val)
    weight, bias = fitted.predict.heads[FP]
    logits, errors = {}, {}
    for precision in map(str, recipe.precisions):
        set_precision(net, precision)
        with torch.no_grad():
            logits[precision] = net(x) @ weight.T + bias
            errors[precision] = [
                ((layer.quantized_weight() - layer.weight).norm() / layer.weight.norm()).item()
                for layer in quantized_layers(net).values()
            ]
    top1 = {
        precision: accuracy(predicted, val.labels, 10).top1
        for precision, predicted in fitted.predict(val).items()
    }
    return logits, errors, top1, val.labels


def test_each_bit_halves_the_weight_error(study):
    _, errors, _, _ = study
    assert errors["FP"] == [0, 0, 0]
    for layer in range(3):
        by_bits = [errors[_name(bits)][layer] for bits in BITS]
        ratios = [fewer / more for more, fewer in itertools.pairwise(by_bits)]
        assert all(1.6 < ratio < 2.7 for ratio in ratios[:-1])  # 8 to 3 bits: (2^b-1)/(2^(b-1)-1)
        assert ratios[-1] > 1.5


def test_logits_err_in_proportion_to_the_weights_while_errors_are_small(study):
    logits, errors, _, _ = study
    bits = (8, 7, 6, 5, 4)  # the weights' error grows 17-fold
    weight_error = np.log([np.mean(errors[_name(b)]) for b in bits])
    logit_error = np.log([(logits[_name(b)] - logits["FP"]).norm().item() for b in bits])
    exponent = np.polyfit(weight_error, logit_error, 1)[0]
    assert 0.75 < exponent < 1.35  # 1 to first order


def test_no_image_changes_class_within_its_margin(study):
    logits, _, top1, labels = study
    best = logits["FP"].topk(2, dim=1)
    margin = best.values[:, 0] - best.values[:, 1]
    correct = best.indices[:, 0] == labels
    for bits in BITS:
        error = (logits[_name(bits)] - logits["FP"]).abs().amax(dim=1)
        safe = 100 * (correct & (margin > 2 * error)).float().mean().item()
        assert top1[_name(bits)] >= safe - 1e-6


def test_accuracy_falls_with_the_bits_as_the_margins_say(study):
    _, _, top1, _ = study
    assert top1["FP"] > 85  # it is a trained network
    assert abs(top1[_name(8)] - top1["FP"]) <= 1
    assert top1[_name(2)] < top1[_name(4)] - 5 < top1["FP"]
    order = [top1[_name(bits)] for bits in (8, 4, 3, 2)]
    assert all(more >= fewer - 1 for more, fewer in itertools.pairwise(order))
