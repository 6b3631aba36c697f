"""Momentum encoder of BYOL, MoCo v2 and MoCo v3: targets from a moving average."""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lowbit.pretrain.frameworks.base import Embedding, Framework
from lowbit.pretrain.frameworks.options import EmaSchedule
from lowbit.pretrain.frameworks.together import together
from lowbit.quant import QuantPolicy, quantize, set_precision


def ema_at(progress: float, *, base: float, schedule: EmaSchedule) -> float:
    """Return the target's momentum m at `progress` in 0..1: `base`, or on a cosine from it to 1.

    Example:
        >>> [ema_at(t, base=0.99, schedule="cosine") for t in (0.0, 0.5, 1.0)]
        [0.99, 0.995, 1.0]
    """
    if schedule == "constant":
        return base
    return 1 - (1 - base) * (1 + math.cos(math.pi * progress)) / 2  # BYOL, Sec. 3.2


class MomentumFramework(Framework):
    """Base of the frameworks with a momentum encoder, theta_k <- m theta_k + (1 - m) theta_q.

    Parameters are averaged before the first embedding of a step; statistics of batch norms and
    ranges of quantizers are the momentum encoder's own. It stays in train mode, and embeds at the
    precision of the comparison: its weights are kept in full precision and quantized on the
    fly.

    Args:
        backbone, projector, predictor: as in `Framework`.
        ema: m, at the start.
        ema_schedule: "constant", or "cosine" from there to 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        predictor: nn.Module | None = None,
        *,
        ema: float,
        ema_schedule: EmaSchedule,
    ) -> None:
        super().__init__(backbone, projector, predictor)
        self.ema, self.ema_schedule = ema, ema_schedule
        self.momentum_encoder = deepcopy(self.encoder).requires_grad_(False)

    def quantize(self, policy: QuantPolicy) -> None:
        """Quantize the encoder and the momentum encoder in the same way."""
        super().quantize(policy)
        quantize(self.momentum_encoder, policy)

    def begin_step(self, progress: float) -> None:
        """Average the weights."""
        update = get_ema_multi_avg_fn(ema_at(progress, base=self.ema, schedule=self.ema_schedule))
        ours, online = (list(e.parameters()) for e in (self.momentum_encoder, self.encoder))
        update(ours, online, None)

    @torch.no_grad()
    def keys(self, embeddings: list[Embedding]) -> list[Tensor]:
        """Return the momentum encoder's projections of the views, at the embeddings' precision."""
        set_precision(self.momentum_encoder, embeddings[0].precision)
        return together(self.momentum_encoder, [each.view for each in embeddings])
