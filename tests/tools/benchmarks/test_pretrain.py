"""The loop that pretraining steps are held against."""

from torch.utils.flop_counter import FlopCounterMode

from lowbit.pretrain.recipe import Recipe
from lowbit.tools.benchmarks.pretrain import hand_written, steps_of


def test_the_hand_written_loop_computes_as_much_as_the_trainer():
    """The same passes of convolutions and linear layers, forward and back, so that a ratio is fair."""
    settings = {"architecture": "resnet10_slim", "dataset": "digits", "device": "cpu"}
    recipe = Recipe(**settings, image_size=16, batch_size=16, epochs=9, dim=32, hidden_dim=8)
    counts = []
    for take in (hand_written(recipe), steps_of(recipe)):
        with FlopCounterMode(display=False) as counter:
            take()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
