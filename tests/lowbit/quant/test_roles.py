"""Every trainable parameter has exactly one role."""

import pytest
from torch import nn

from lowbit.quant import parameters_by_role, quantize


def _model():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


# (latent, scale): LSQ+ and EWGS learn an offset or a bound beside each scale; EWGS rescales, so the
# last layer, which no norm follows, has an output scale.
@pytest.mark.parametrize(
    ("policy", "latent", "scale"),
    [("lsq", 2, 4), ("ewgs", 2, 9), ("tr", 2, 3), ("dorefa", 2, 0), ("cq", 2, 0)],
)
def test_roles_are_disjoint_and_complete(policy, latent, scale):
    model = quantize(_model(), policy)
    roles = parameters_by_role(model)
    members = [id(p) for role in roles.values() for p in role]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in model.parameters() if p.requires_grad}
    assert {role: len(found) for role, found in roles.items()} == {
        "other": 3,  # the first convolution and the last bias
        "norm": 4,
        "scale": scale,
        "latent": latent,
    }


def test_what_is_frozen_has_no_role():
    model = quantize(_model(), "lsq").requires_grad_(False)
    assert not any(parameters_by_role(model).values())
