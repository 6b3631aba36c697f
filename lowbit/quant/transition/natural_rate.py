"""The transition rate that the plain optimizer has by itself, measured before the target is set."""

from torch import Tensor

from lowbit.quant.transition.codes import Codes

SHARE = 20  # the first twentieth of the training is measured


class NaturalRate:
    """Mean share of weights that change level in a step, over the first twentieth of a training.

    Until `steps` steps are measured, U has to stay at U_0, which makes them the plain optimizer's (with
    frozen scales of weights, and its schedule's first rate). All quantized weights count alike.

    Args:
        total_steps: of the training.
    """

    def __init__(self, total_steps: int) -> None:
        self.steps = max(1, total_steps // SHARE)
        self.total: Tensor | float = 0.0  # sum of the measured steps' rates

    def measure(self, codes: Codes, step: int) -> float | None:
        """Add the rate of step number `step`, counted from 1; after the last one return the mean.

        Waits for the device at the last one only.
        """
        self.total = self.total + codes.changed.sum() / codes.numel.sum()
        return float(self.total) / self.steps if step == self.steps else None
