"""Base class of networks with a stem, stages, indexed feature maps and pooled features."""

import torch
from torch import Tensor, nn


class Staged(nn.Module):
    """A network with a stem and stages that returns pooled features.

    A subclass has `stem(x)`, whose name among the maps is the first of `feature_info`, adds its
    stages under `stage_names`, and calls `finish` once built. All levels of `feature_info` except
    the first are stages.
    """

    feature_info: list[dict]
    stage_names: list[str]

    def stem(self, x: Tensor) -> Tensor:
        """Return the input of the first stage."""
        raise NotImplementedError

    def finish(self, num_features: int) -> None:
        """Add the pooling."""
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.num_features = num_features

    def draw_convolutions(self) -> None:
        """Initialize the convolutions as in ResNets (He et al. 2015, fan-out)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_intermediates(
        self,
        x: Tensor,
        indices: list[int] | None = None,
        *,
        intermediates_only: bool = True,
        stop_early: bool = True,
    ) -> list[Tensor]:
        """Return the feature maps at `indices` of `feature_info`, as timm's networks do."""
        levels = range(len(self.feature_info)) if indices is None else sorted(indices)
        wanted = [self.feature_info[index]["module"] for index in levels]
        x = self.stem(x)
        maps = [x] if 0 in levels else []
        for name in self.stage_names:
            if stop_early and len(maps) == len(wanted):
                break
            x = getattr(self, name)(x)
            if name in wanted:
                maps.append(x)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, (N, C, H, W)."""
        x = self.stem(x)
        for name in self.stage_names:
            x = getattr(self, name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled features, (N, C)."""
        return torch.flatten(self.global_pool(self.forward_features(x)), 1)
