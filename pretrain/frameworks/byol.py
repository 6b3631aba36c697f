"""BYOL (Grill et al. 2020), with the heads of the official SSQL code."""

from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.pretrain.frameworks.base import FRAMEWORKS, Embedding
from lowbit.pretrain.frameworks.heads import mlp, projector
from lowbit.pretrain.frameworks.momentum import MomentumFramework
from lowbit.pretrain.frameworks.options import FrameworkOptions

_DIM, _HIDDEN = 512, 2048


@FRAMEWORKS.register()
def byol(backbone: nn.Module, options: FrameworkOptions) -> "BYOL":
    """Build BYOL: dim 512, hidden_dim 2048, three layers, the last without norm, m constant at 0.99.

    SSQL's own BYOL has dim 2048 and, with projector_norm "all", a norm without weights at the end.
    """
    dim = options.dim or _DIM
    return BYOL(
        backbone,
        projector(
            backbone.num_features,
            options,
            dim=_DIM,
            hidden_dim=_HIDDEN,
            layers=3,
            norm="hidden",
            affine=False,
        ),
        mlp((dim, options.hidden_dim or _HIDDEN, dim), norm="hidden"),
        ema=0.99 if options.ema is None else options.ema,
        ema_schedule=options.ema_schedule or "constant",
    )


class BYOL(MomentumFramework):
    """Regress the momentum encoder's projection: |p/|p| - k/|k||^2 = 2 - 2 cos(p, k)."""

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        return 2 - 2 * F.cosine_similarity(online.p, target.k, dim=1).mean()
