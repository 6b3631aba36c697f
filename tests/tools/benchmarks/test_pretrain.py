"""The loop that pretraining steps are held against."""

import torch

from lowbit.pretrain.recipe import Recipe
from lowbit.tools.benchmarks.pretrain import hand_written, steps_of


def test_the_hand_written_loop_takes_the_trainers_steps():
    settings = {"architecture": "resnet10_slim", "dataset": "digits", "device": "cpu"}
    recipe = Recipe(**settings, image_size=16, batch_size=16, epochs=9, dim=32, hidden_dim=8)
    torch.manual_seed(0)
    for take in (hand_written(recipe), steps_of(recipe)):
        take()
        take()
