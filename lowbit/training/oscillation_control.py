"""What a recipe says about oscillating weights, and its effect on an optimizer."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import nn
from torch.optim import Optimizer

from lowbit.common.input_files.strict_model import StrictModel
from lowbit.quant.oscillation.annealing import Annealing
from lowbit.quant.oscillation.attach import attach, controlled_layers
from lowbit.quant.oscillation.dampening import Dampening
from lowbit.quant.oscillation.freezing import Freezing

_OWN = {"dampening": {"weight", "reduce"}, "freezing": {"threshold", "momentum", "most_bits"}}

Positive = Annotated[float, Field(gt=0)]


class Oscillation(StrictModel):
    """What is done about weights that oscillate between levels (Nagel et al., ICML 2022).

    Defaults are those of the authors' code for MobileNetV2 at 3 bits on ImageNet.
    """

    method: Literal["dampening", "freezing"] = Field(
        description="pull latent weights to the middle of their interval, or freeze the codes of "
        "those that oscillate most"
    )
    weight: Positive = Field(
        0.1, description="dampening: final weight of its loss, which rises from 0"
    )
    reduce: Literal["kernel-mean", "sum"] = Field(
        "kernel-mean",
        description="dampening: sum over outputs of kernels' means, or over all weights",
    )
    threshold: tuple[Positive, Positive] = Field(
        (0.1, 0.011), description="freezing: first and final frequency above which a code is frozen"
    )
    momentum: float = Field(
        1e-3, gt=0, le=1, description="freezing: weight of the present in running frequencies"
    )
    most_bits: int = Field(
        4, ge=1, description="freezing: layers whose weights have more bits are left alone"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="from the first value to the final one; constant: the final one"
    )
    start: float = Field(
        0.25, ge=0, lt=1, description="share of the training before the value moves"
    )

    @model_validator(mode="after")
    def _check(self) -> "Oscillation":
        for method, fields in _OWN.items():
            changed = sorted(fields & self._changed())
            if method != self.method and changed:
                raise ValueError(
                    f"oscillation.{changed[0]} belongs to method {method}, not {self.method}; nothing was "
                    f"trained. Remove it, or choose {method}."
                )
        if self.method == "freezing" and self.threshold[1] < 2 * self.momentum:
            raise ValueError(
                f"oscillation.threshold ends at {self.threshold[1]:g}, below twice the momentum "
                f"{self.momentum:g}, where a weight's first oscillation freezes it; nothing was "
                "trained. Raise the threshold, or lower the momentum."
            )
        return self

    @property
    def label(self) -> str:
        """The method with what differs from the defaults: part of a row's label."""
        changed = self._changed()
        parts = [f"{name}{_text(getattr(self, name))}" for name in _FIELDS if name in changed]
        return "-".join([self.method, *parts])

    def _changed(self) -> set[str]:
        """Return the names of fields with other values than the defaults."""
        fields = type(self).model_fields
        return {name for name in _FIELDS if getattr(self, name) != fields[name].default}


_FIELDS = tuple(name for name in Oscillation.model_fields if name != "method")


def control_oscillation(
    optimizer: Optimizer, model: nn.Module, section: Oscillation, *, total_steps: int
) -> None:
    """Attach a recipe's method to an optimizer, whose state then holds its state.

    Call it before the optimizer is told to clip gradients.

    Raises:
        ValueError: no layer is quantized by a quantizer with a learned step, or with that few bits.
    """
    course = {"total_steps": total_steps, "schedule": section.schedule, "start": section.start}
    if section.method == "dampening":
        layers, weight = controlled_layers(model), Annealing(0.0, section.weight, **course)
        attach(optimizer, Dampening(layers, weight, reduce=section.reduce))
    else:
        layers = controlled_layers(model, most_bits=section.most_bits)
        threshold = Annealing(*section.threshold, **course)
        attach(optimizer, Freezing(layers, threshold, momentum=section.momentum))


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "to".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
