"""The order of images and each step's randomness: functions of (seed, position), nothing else."""

import itertools
import random

import numpy as np
import pytest
import torch

from lowbit.training.seeding import IndexStream, ResumableSampler, seed_everything, seed_of


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_every_epoch_is_a_permutation_and_no_two_are_alike():
    stream = IndexStream(11, seed=0)
    epochs = [[stream[p] for p in range(11 * e, 11 * (e + 1))] for e in range(3)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_stream_is_the_same_from_any_position_on():
    straight = take(ResumableSampler(7, seed=4), 40)
    for start in (1, 7, 23):
        assert take(ResumableSampler(7, seed=4, start=start), 40 - start) == straight[start:]
    assert take(ResumableSampler(7, seed=5), 40) != straight


def test_ranks_share_a_stream_between_them():
    whole = take(ResumableSampler(7, seed=4, start=6), 30)
    parts = [take(ResumableSampler(7, seed=4, start=6, rank=r, world=3), 10) for r in range(3)]
    assert [index for group in zip(*parts, strict=True) for index in group] == whole


def test_a_step_draws_the_same_numbers_whatever_was_drawn_before():
    def draws():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    seed_everything(1, 5)
    first = draws()
    seed_everything(1, 4)
    draws()
    seed_everything(1, 5)
    assert draws() == first
    seed_everything(1, 6)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


@pytest.mark.parametrize("pairs", [[(0, 1), (1, 0)], [(0, 0), (0, 1)], [(2, 3), (3, 2)]])
def test_seeds_of_neighbouring_draws_differ(pairs):
    assert seed_of(*pairs[0]) != seed_of(*pairs[1])
