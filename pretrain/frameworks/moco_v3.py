"""MoCo v3 (Chen, Xie and He 2021): for vision transformers and convolutional networks."""

from torch import Tensor, nn

from lowbit.pretrain.frameworks.base import FRAMEWORKS, Embedding
from lowbit.pretrain.frameworks.heads import mlp, projector
from lowbit.pretrain.frameworks.losses import info_nce
from lowbit.pretrain.frameworks.momentum import MomentumFramework
from lowbit.pretrain.frameworks.options import EmaSchedule, FrameworkOptions

_DIM, _HIDDEN = 256, 4096


@FRAMEWORKS.register()
def moco_v3(backbone: nn.Module, options: FrameworkOptions) -> "MoCoV3":
    """Build MoCo v3: dim 256, hidden_dim 4096, m on a cosine from 0.99 to 1, temperature 0.2.

    The projector has three layers on a transformer and two on another network, with a norm after
    each and no weights in the last; the predictor has two, the last normalized on a transformer only.
    """
    transformer = hasattr(backbone, "patch_embed")
    if transformer:
        freeze_patch_embedding(backbone.patch_embed)
    dim = options.dim or _DIM
    return MoCoV3(
        backbone,
        projector(
            backbone.num_features,
            options,
            dim=_DIM,
            hidden_dim=_HIDDEN,
            layers=3 if transformer else 2,
            norm="all",
            affine=False,
        ),
        mlp(
            (dim, options.hidden_dim or _HIDDEN, dim),
            norm="all" if transformer else "hidden",
            affine=False,
        ),
        temperature=options.temperature or 0.2,
        ema=0.99 if options.ema is None else options.ema,
        ema_schedule=options.ema_schedule or "cosine",
    )


class MoCoV3(MomentumFramework):
    """Identify each prediction's key among the batch's keys: 2 tau InfoNCE(p, k), both ways."""

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        *,
        temperature: float,
        ema: float,
        ema_schedule: EmaSchedule,
    ) -> None:
        super().__init__(backbone, projector, predictor, ema=ema, ema_schedule=ema_schedule)
        self.temperature = temperature

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        loss = info_nce(online.p, target.k, temperature=self.temperature)
        return 2 * self.temperature * loss  # Algorithm 1


def freeze_patch_embedding(patch_embed: nn.Module) -> None:
    """Keep the patch projection random, which stabilizes training (Sec. 4.2)."""
    for conv in patch_embed.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.xavier_uniform_(conv.weight.flatten(1))  # as a linear layer of a patch
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
    patch_embed.requires_grad_(False)
