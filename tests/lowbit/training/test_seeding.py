"""Random streams and minibatches."""

import pytest
import torch

from lowbit.training.seeding import minibatches, seed_everything, seed_of, seed_torch, stream


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(8, 4, [4, 4]), (10, 4, [4, 4, 2]), (9, 4, [4, 5]), (3, 4, [3]), (1, 4, [1])],
)
def test_every_image_once_an_epoch_and_no_batch_of_one(n, batch_size, sizes):
    batches = minibatches(n, batch_size, stream(0, "order"))
    assert [len(batch) for batch in batches] == sizes
    assert torch.cat(batches).sort().values.equal(torch.arange(n))


def test_streams_repeat_by_name_and_seed_and_epochs_differ():
    first, again = stream(5, "order"), stream(5, "order")
    assert torch.cat(minibatches(50, 8, first)).equal(torch.cat(minibatches(50, 8, again)))
    second_epoch = torch.cat(minibatches(50, 8, first))
    for other in (stream(6, "order"), stream(5, "views")):
        draws = torch.cat(minibatches(50, 8, other))
        assert not draws.equal(second_epoch)
        assert not draws.equal(torch.cat(minibatches(50, 8, stream(5, "order"))))


def test_seeds_are_torchs():
    torch.manual_seed(7)
    expected = torch.rand(3)
    seed_torch(7)
    assert torch.rand(3).equal(expected)
    torch.manual_seed(seed_of(7, 2))
    expected = torch.rand(3)
    seed_everything(7, 2)
    assert torch.rand(3).equal(expected)


@pytest.mark.parametrize("there", [True, False])
def test_an_accelerator_is_seeded_where_there_is_one(there, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    seed_torch(7)
    assert seeded == [7] * there
