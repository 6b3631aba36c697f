"""MoCo v2 (He et al. 2020, Chen et al. 2020): queries against a queue of earlier batches' keys."""

import torch
from torch import Tensor, nn

from lowbit.pretrain.frameworks.base import FRAMEWORKS, Embedding
from lowbit.pretrain.frameworks.heads import projector
from lowbit.pretrain.frameworks.losses import info_nce_queue, unit
from lowbit.pretrain.frameworks.momentum import MomentumFramework
from lowbit.pretrain.frameworks.options import EmaSchedule, FrameworkOptions
from lowbit.pretrain.frameworks.ranks import gather_rows, shuffled
from lowbit.quant import set_precision

_DIM, _HIDDEN = 256, 2048  # official SSQL code


@FRAMEWORKS.register()
def moco_v2(backbone: nn.Module, options: FrameworkOptions) -> "MoCoV2":
    """Build MoCo v2: two layers without norms, dim 256, hidden_dim 2048, queue_size 4096, m 0.999."""
    return MoCoV2(
        backbone,
        projector(
            backbone.num_features, options, dim=_DIM, hidden_dim=_HIDDEN, layers=2, norm="none"
        ),
        dim=options.dim or _DIM,
        queue_size=options.queue_size or 4096,
        temperature=options.temperature or 0.2,
        ema=0.999 if options.ema is None else options.ema,
        ema_schedule=options.ema_schedule or "constant",
    )


class MoCoV2(MomentumFramework):
    """Identify each query's key among the keys in a queue; queries are first views, keys second views.

    The momentum encoder's batch norms see images in an order shuffled over ranks. Keys enter the
    queue at the end of a step, from all ranks and all micro-batches, and replace the oldest;
    a pairing that compares with several precisions of a view enters its keys at each of them.

    Args:
        backbone, projector: as in `Framework`.
        dim: width of the projection.
        queue_size: K, keys kept.
        temperature: tau.
        ema, ema_schedule: as in `MomentumFramework`.
    """

    symmetric = False

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        *,
        dim: int,
        queue_size: int,
        temperature: float,
        ema: float,
        ema_schedule: EmaSchedule,
    ) -> None:
        super().__init__(backbone, projector, ema=ema, ema_schedule=ema_schedule)
        self.temperature = temperature
        self.register_buffer("queue", unit(torch.randn(queue_size, dim)))  # (K, dim)
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))  # index of the oldest
        self._keys: list[Tensor] = []  # of the current step

    def begin_step(self, progress: float) -> None:
        super().begin_step(progress)
        self._keys.clear()

    @torch.no_grad()
    def keys(self, embeddings: list[Embedding]) -> list[Tensor]:
        """Return keys of embeddings of one precision, of length 1, and keep them for the queue."""
        set_precision(self.momentum_encoder, embeddings[0].precision)
        found = [unit(shuffled(self.momentum_encoder, each.view)) for each in embeddings]
        self._keys += found
        return found

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        return info_nce_queue(online.z, target.k, self.queue, temperature=self.temperature)

    @torch.no_grad()
    def end_step(self) -> None:
        """Replace the oldest keys by the step's; if there are more than K, keep the last K."""
        keys = gather_rows(torch.cat(self._keys))[-len(self.queue) :]
        self._keys.clear()
        places = (self.queue_ptr + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue.index_copy_(0, places, keys)
        self.queue_ptr.add_(len(keys)).remainder_(len(self.queue))
