"""A framework's options, where a recipe departs from the published values."""

from dataclasses import dataclass
from typing import Literal

EmaSchedule = Literal["constant", "cosine"]
Norm = Literal["none", "hidden", "all"]


@dataclass(frozen=True, kw_only=True)
class FrameworkOptions:
    """Widths, temperature and momentum of a framework; None means the published value.

    Attributes:
        dim: width of the projection.
        hidden_dim: hidden width of projector and predictor.
        projector_layers: linear layers of the projector.
        projector_norm: which of them a batch norm follows.
        temperature: of the softmax.
        ema: momentum of the target, at the start.
        ema_schedule: schedule of the momentum.
        queue_size: keys kept.
    """

    dim: int | None = None
    hidden_dim: int | None = None
    projector_layers: int | None = None
    projector_norm: Norm | None = None
    temperature: float | None = None
    ema: float | None = None
    ema_schedule: EmaSchedule | None = None
    queue_size: int | None = None
