"""What float32 and float64 predict, compared on a sample of the images."""

import torch
from torch import nn

from lowbit.transfer.scoring.rounding import rounding_shares, sample_size


class OnATie(nn.Module):
    """Class 0 where w x >= c. At x = 3 float32 rounds w x up to c, and float64 does not."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.1]))
        self.register_buffer("c", torch.tensor([0.1]) * 3)

    def forward(self, x):
        step = (x * self.w >= self.c).to(x.dtype)
        return torch.stack([step, torch.full_like(step, 0.5)], dim=1)


class Numbers:
    """Images of one number each."""

    frames, name, classes, split, split_sha256 = None, "numbers", ("a", "b"), "test", "0" * 64

    def __init__(self, x):
        self.x, self.labels, self.ids = (
            x,
            torch.zeros(len(x), dtype=torch.int64),
            torch.arange(len(x)),
        )

    def __len__(self):
        return len(self.x)

    def batches(self, view, *, batch_size, places=None):
        yield from (self.x if places is None else self.x[places]).split(batch_size)


def _predict(network):
    def predict(images):
        batches = images.batches(None, batch_size=4)
        return {"4w4a": torch.cat([network(x).argmax(1) for x in batches])}

    return predict


def test_counts_the_predictions_that_rounding_decides():
    network, images = OnATie(), Numbers(torch.tensor([1.0, 3, 5, 3, 3, 1, 9, 2, 3, 4]))
    predict = _predict(network)
    classes = predict(images)
    every = rounding_shares(predict, [network, network], images, classes, count=10)
    assert every == {"images": 10, "share": {"4w4a": 40.0}}
    five = rounding_shares(predict, [network], images, classes, count=5)  # places 0, 2, 4, 6, 8
    assert five == {"images": 5, "share": {"4w4a": 40.0}}


def test_a_network_that_does_not_run_in_float64_is_said_and_left_out(caplog):
    class Single(OnATie):
        def forward(self, x):
            return super().forward(x @ torch.ones(1, 1))  # float32, neither parameter nor buffer

    network, images = Single(), Numbers(torch.ones(4, 1))
    classes = {"4w4a": torch.zeros(4, dtype=torch.int64)}
    predict = _predict(network)
    assert rounding_shares(predict, [network], images, classes, count=4) is None
    assert "does not run in float64" in caplog.text
    assert network.w.dtype == torch.float32


def test_samples_are_smaller_where_a_network_costs_more():
    assert sample_size(300, 1e6) == 300
    assert sample_size(10_000, 1e6) == 512
    assert sample_size(10_000, 1e9) == 200
    assert sample_size(10_000, 1e12) == 32
    assert sample_size(10, 1e12) == 10
