"""The work of a recipe, against passes counted in a real step and against arithmetic by hand."""

import pytest
import torch

from lowbit.backbones.counting import network_size
from lowbit.backbones.networks.small_resnet import SmallResNet
from lowbit.pretrain import Recipe, work
from lowbit.pretrain.compute_cost import passes
from lowbit.pretrain.running import open_source
from lowbit.pretrain.trainer import Trainer


@pytest.mark.parametrize(
    ("framework", "pairing", "counted"),
    [
        ("simsiam", "plain", 6),  # 2 views x 3
        ("simsiam", "ssql", 12),  # 2 views, twice
        ("simclr", "cq-a", 6),
        ("simclr", "cq-c", 12),
        ("byol", "plain", 8),  # and 2 of the target network
        ("moco_v2", "plain", 4),  # one way: 1 query, 1 key
        ("moco_v3", "plain", 8),
        ("simclr", "cq-quant", 6),
    ],
)
def test_passes_of_a_step(framework, pairing, counted):
    assert passes(framework, pairing) == counted


@pytest.mark.parametrize("framework", ["simsiam", "byol", "moco_v2", "simclr"])
@pytest.mark.parametrize("pairing", ["plain", "ssql", "cq-c"])
def test_passes_are_those_of_a_real_step(framework, pairing):
    """Count the views that one step embeds: three passes each with a gradient, one without."""
    recipe = Recipe(
        **{"framework": framework, "pairing": pairing, "architecture": "resnet10_slim"},
        **{"dataset": "digits", "image_size": 16, "batch_size": 16, "epochs": 1, "seed": 1},
        **{"dim": 16, "hidden_dim": 16, "queue_size": 64 if framework == "moco_v2" else None},
    )
    device = torch.device("cpu")
    trainer = Trainer(recipe, open_source(recipe, "train", device=device), device=device)
    seen = []

    def count(module, inputs, output):
        if isinstance(module, SmallResNet):
            seen.append((3 if output.requires_grad else 1) * len(output) / recipe.batch_size)

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        next(trainer.train_epoch())
    finally:
        handle.remove()
    assert sum(seen) == passes(framework, pairing)  # seed 1 draws two precisions that differ


def test_the_whole_of_a_recipe():
    recipe = Recipe(architecture="resnet18_cifar", dataset="cifar10", batch_size=512, epochs=10)
    steps = 10 * (45_000 // 512)
    size = network_size("resnet18_cifar", 32)
    found = work(recipe)
    assert found.operations == steps * 512 * 6 * size.operations
    assert found.disk == 4 * size.parameters * (1 + 2 * 3)
    assert found.shared_operations == 0


def test_an_untrained_network_costs_its_file():
    recipe = Recipe(architecture="resnet20", dataset="digits", epochs=0)
    assert (work(recipe).operations, work(recipe).disk) == (0, 4 * 269_072)
