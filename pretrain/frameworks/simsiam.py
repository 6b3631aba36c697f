"""SimSiam (Chen and He 2021), with the projector and predictor of the official SSQL code."""

from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.pretrain.frameworks.base import FRAMEWORKS, Embedding, Framework
from lowbit.pretrain.frameworks.heads import mlp
from lowbit.pretrain.frameworks.options import FrameworkOptions

_DIM = 2048  # SimSiam and SSQL, for the projection and the predictor's hidden layer


@FRAMEWORKS.register()
def simsiam(backbone: nn.Module, options: FrameworkOptions) -> "SimSiam":
    """Build SimSiam; both widths are 2048 by default (SSQL has hidden_dim 512 for ResNet-50)."""
    dim = options.dim or _DIM
    predictor = (dim, options.hidden_dim or _DIM, dim)
    return SimSiam(backbone, _projector(backbone.num_features, dim), mlp(predictor, norm="hidden"))


class SimSiam(Framework):
    """Compare a prediction with a stopped projection: D(p, z) = -mean_i cos(p_i, sg(z_i))."""

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        """Return D(p, sg(z)), in -1..1; -1 when every prediction points at its target."""
        return -F.cosine_similarity(online.p, target.k, dim=1).mean()


def _projector(num_features: int, dim: int) -> nn.Sequential:
    """Three layers as wide as the wider of input and output; the last one's bias stays frozen."""
    width = max(num_features, dim)
    last = nn.Linear(width, dim)
    # A bias before a batch norm has no effect; SimSiam keeps it, frozen, for its initialization.
    last.bias.requires_grad_(False)
    return nn.Sequential(
        nn.Linear(num_features, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        last,
        nn.BatchNorm1d(dim, affine=False),
    )
