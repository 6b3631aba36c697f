"""BYOL (Grill et al. 2020), with the heads of the official SSQL code."""

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.pretrain.frameworks.base import FRAMEWORKS, Embedding
from lowbit.pretrain.frameworks.heads import mlp, projector
from lowbit.pretrain.frameworks.momentum import MomentumFramework

if TYPE_CHECKING:
    from lowbit.pretrain.recipe import Recipe

_DIM, _HIDDEN = 512, 2048


@FRAMEWORKS.register()
def byol(backbone: nn.Module, recipe: "Recipe") -> "BYOL":
    """Build BYOL: dim 512, hidden_dim 2048, three layers, the last without norm, m constant at 0.99.

    SSQL's own BYOL has dim 2048 and, with projector_norm "all", a norm without weights at the end.
    """
    dim = recipe.dim or _DIM
    return BYOL(
        backbone,
        projector(
            backbone.num_features,
            recipe,
            dim=_DIM,
            hidden_dim=_HIDDEN,
            layers=3,
            norm="hidden",
            affine=False,
        ),
        mlp((dim, recipe.hidden_dim or _HIDDEN, dim), norm="hidden"),
        ema=0.99 if recipe.ema is None else recipe.ema,
        ema_schedule=recipe.ema_schedule or "constant",
    )


class BYOL(MomentumFramework):
    """Regress the momentum encoder's projection: |p/|p| - k/|k||^2 = 2 - 2 cos(p, k)."""

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        return 2 - 2 * F.cosine_similarity(online.p, target.k, dim=1).mean()
