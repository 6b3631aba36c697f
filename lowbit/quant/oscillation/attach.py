"""Attach what controls oscillation to an optimizer, whose state then holds its state."""

from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from lowbit.quant.convert import quantized_layers
from lowbit.quant.precision import OFF

KEY = "oscillation"  # of an optimizer's state, and its attribute


class Control(Protocol):
    """What acts on latent weights before and after each step of an optimizer."""

    def before_step(self) -> None:
        """Change gradients, which are no longer scaled."""

    def after_step(self) -> None:
        """Change weights."""

    def report(self) -> dict[str, Any]:
        """Return what to log, in plain JSON types; reads the device."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step depends on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""


def attach(optimizer: Optimizer, control: Control) -> None:
    """Let `control` act around each step; its state is saved and restored with the optimizer's.

    Attach it before whatever clips gradients, so that those it adds are clipped with the others. A step
    that a gradient scaler skips is not seen.
    """
    optimizer.register_step_pre_hook(lambda *_: control.before_step())
    optimizer.register_step_post_hook(lambda *_: control.after_step())

    def save(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, KEY: control.state_dict()}

    def restore(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        if KEY not in state:
            raise ValueError(
                "this optimizer state does not say which weights oscillate; nothing was restored. It "
                "was saved by a training without `oscillation`: start the training anew."
            )
        control.load_state_dict(state[KEY])
        return {name: value for name, value in state.items() if name != KEY}

    optimizer.register_state_dict_post_hook(save)
    optimizer.register_load_state_dict_pre_hook(restore)
    optimizer.oscillation = control


def controlled_layers(model: nn.Module, *, most_bits: int = OFF - 1) -> dict[str, nn.Module]:
    """Return the layers whose weights have at most so many bits and levels that only their scale moves.

    Raises:
        ValueError: a quantizer computes its levels from the weights, or there is no such layer.
    """
    found = {
        name: layer
        for name, layer in quantized_layers(model).items()
        if layer.w_quant.bits <= most_bits
    }
    for name, layer in found.items():
        if layer.w_quant.latent_step is None:
            raise ValueError(
                f"the levels of {name} are no multiples of a step ({type(layer.w_quant).__name__}), so "
                "the middle of a weight's interval is unknown; nothing was trained. Use a policy with "
                "LSQ or Interval weights, such as lsq, lsqplus or interval."
            )
    if not found:
        raise ValueError(
            f"no layer has weights of {most_bits} bits or fewer; nothing was trained. Lower the "
            "precision, raise most_bits, or leave `oscillation` out."
        )
    return found
