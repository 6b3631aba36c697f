"""SimCLR (Chen et al. 2020), with the three-layer head that Contrastive Quant's CIFAR runs use."""

from torch import Tensor, nn

from lowbit.pretrain.frameworks.base import FRAMEWORKS, Embedding, Framework
from lowbit.pretrain.frameworks.heads import projector
from lowbit.pretrain.frameworks.losses import nt_xent
from lowbit.pretrain.frameworks.options import FrameworkOptions


@FRAMEWORKS.register()
def simclr(backbone: nn.Module, options: FrameworkOptions) -> "SimCLR":
    """Build SimCLR; every layer of the head is as wide as the backbone's features by default."""
    width = backbone.num_features
    head = projector(width, options, dim=width, hidden_dim=width, layers=3, norm="all")
    return SimCLR(backbone, head, temperature=options.temperature or 0.5)


class SimCLR(Framework):
    """Contrast projections with gradient on both sides and without a predictor.

    Negatives are those of all ranks.

    Args:
        backbone, projector: as in `Framework`.
        temperature: of NT-Xent.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module, *, temperature: float) -> None:
        super().__init__(backbone, projector)
        self.temperature = temperature

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        return nt_xent(online.z, target.k, temperature=self.temperature)

    def both_ways(self, a: Embedding, b: Embedding) -> Tensor:
        """Return NT-Xent once: it is symmetric, unless one side is a stopped target."""
        return nt_xent(a.z, b.z, temperature=self.temperature)
