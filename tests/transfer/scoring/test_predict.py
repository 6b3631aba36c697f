"""Classes that a whole network predicts."""

import pytest
import torch
from torch import nn

from lowbit.data import Center
from lowbit.quant import calibrate, quantize, set_precision
from lowbit.transfer.scoring.predict import predicted_classes

PLAIN = Center(size=32, resize=32)


def test_classes_are_the_largest_outputs_and_the_mode_is_given_back(tiny_net, few_digits, see):
    network = tiny_net().train()
    found = predicted_classes(network, few_digits, PLAIN, batch_size=64)
    assert network.training
    with torch.no_grad():
        assert torch.equal(found, network.eval()(see(few_digits)).argmax(1))


def test_no_class_is_predicted_past_a_quantizer(tiny_net, few_digits, see, pass_by):
    network: nn.Module = quantize(tiny_net(), "lsq")
    calibrate(network, [see(few_digits, places=torch.arange(64))])
    set_precision(pass_by(network), "4w4a")
    with pytest.raises(ValueError, match=r"^1 of 2 layers .* passed by \(body\.3\)"):
        predicted_classes(network.train(), few_digits, PLAIN, batch_size=64)
    assert network.training
