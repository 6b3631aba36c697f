"""Calibration: which images, in which order, seen how, and what ranges come of it."""

import pytest
import torch

from lowbit.quant import all_quantizers, get_policy, quantize
from lowbit.transfer import Recipe
from lowbit.transfer.features.calibration import calibrate_on, calibration_order

CPU = torch.device("cpu")


def _recipe(**fields):
    return Recipe(checkpoint="b.pth", calibration_batches=3, calibration_batch_size=16, **fields)


def test_the_clean_order_is_pinned():
    # Written down when the protocol was made: other numbers here mean another protocol VERSION.
    order = calibration_order(1077, mode="clean", seed=0, count=6)
    assert order.tolist() == [397, 207, 901, 822, 197, 796]


def test_clean_images_are_every_seed_s_official_ones_each_seed_s_own():
    orders = {
        (mode, seed): calibration_order(500, mode=mode, seed=seed, count=48)
        for mode in ("clean", "official")
        for seed in (0, 1)
    }
    assert orders["clean", 0].equal(orders["clean", 1])
    assert not orders["official", 0].equal(orders["official", 1])
    assert all(len(order.unique()) == 48 for order in orders.values())
    assert len(calibration_order(30, mode="clean", seed=0, count=48)) == 30


@pytest.mark.parametrize("mode", ["clean", "official"])
def test_the_network_sees_those_batches_in_that_order(tiny_net, few_digits, see, mode):
    recipe = _recipe(calibration=mode, seed=3)
    net = quantize(tiny_net(), get_policy("ssql"))
    seen = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    said = calibrate_on(net, few_digits, recipe=recipe, device=CPU)
    order = calibration_order(len(few_digits), mode=mode, seed=3, count=48)
    plain = see(few_digits, places=order)
    assert [len(batch) for batch in seen] == [16, 16, 16]
    assert torch.cat(seen).equal(plain) == (mode == "clean")
    assert said["images"] == 48 and said["mode"] == mode and len(said["ids_sha256"]) == 64


def test_ranges_are_the_minimum_and_maximum_over_all_batches(tiny_net, few_digits, see):
    recipe = _recipe()
    net = quantize(tiny_net(), get_policy("ssql"))
    calibrate_on(net, few_digits, recipe=recipe, device=CPU)
    order = calibration_order(len(few_digits), mode="clean", seed=0, count=48)
    outputs = []
    x = see(few_digits, places=order)
    with torch.no_grad():
        for module in tiny_net().body:  # the same network, never quantized
            x = module(x)
            if isinstance(module, torch.nn.ReLU):
                outputs.append((x.min(), x.max()))
    found = [q for q in all_quantizers(net) if q.role == "activation"]
    assert len(found) == len(outputs) == 3
    for quantizer, (low, high) in zip(found, outputs, strict=True):
        assert torch.allclose(quantizer.q_min, low, atol=1e-5)
        assert torch.allclose(quantizer.q_max, high, rtol=1e-5)


def test_what_was_calibrated_on_is_in_the_result(tiny_net, few_digits):
    said = []
    for fields in ({"seed": 0}, {"seed": 1}, {"calibration": "official", "seed": 1}):
        recipe = _recipe(**fields)
        net = quantize(tiny_net(), get_policy("ssql"))
        said.append(calibrate_on(net, few_digits, recipe=recipe, device=CPU))
    assert said[0] == said[1]
    assert said[2]["ids_sha256"] != said[1]["ids_sha256"]
