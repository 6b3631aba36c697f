"""A network and a training split small enough to train in every test."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from lowbit.data import Center, load, normalization
from lowbit.data.views.labelled_images import ImagesInMemory
from tests.small_digits import small_digits


class TinyNet(nn.Module):
    """Three conv-BN-ReLU layers on 32x32 images; `forward` gives (N, 16) features."""

    num_features = 16
    architecture = "tiny"

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 12, 16)
        layers = []
        for i, o in itertools.pairwise(widths):
            layers += [nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(o)]
            layers.append(nn.ReLU())
        self.body = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean(dim=(2, 3))


@pytest.fixture(scope="module", autouse=True)
def _small_digits(tmp_path_factory):
    """Every transfer test may use a quarter of the digits."""
    with small_digits(tmp_path_factory.mktemp("splits")):
        yield


@pytest.fixture(scope="session")
def tiny_net():
    """Return a maker of networks; the same seed gives the same network."""

    def make(seed: int = 0) -> TinyNet:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = TinyNet()
            for module in net.modules():  # statistics and affines that are not the identity
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.1)
                    module.running_var.uniform_(0.5, 1.5)
                    nn.init.uniform_(module.weight, 0.5, 1.5)
        return net.eval()

    return make


@pytest.fixture(scope="session")
def pass_by():
    """Return a function that lets a quantized layer of `tiny_net` be computed in full precision."""

    def bypass(net: TinyNet) -> TinyNet:
        conv = net.body[3]
        conv.forward = lambda x: nn.functional.conv2d(x, conv.weight, stride=2, padding=1)
        return net

    return bypass


@pytest.fixture(scope="session")
def see():
    """Return a function that gives a view of all images, or of some places, as one tensor."""

    def tensor(images, view=None, **options):
        view = view or Center(size=32, resize=32)
        return torch.cat(list(images.batches(view, batch_size=64, device="cpu", **options)))

    return tensor


@pytest.fixture(scope="session")
def few_digits():
    """The first 200 training digits."""
    split = load("digits", "train")
    fields = {"images": split.images[:200], "labels": split.labels[:200], "ids": split.ids[:200]}
    mean, std = normalization("digits")
    return ImagesInMemory(dataclasses.replace(split, **fields), mean=mean, std=std)
