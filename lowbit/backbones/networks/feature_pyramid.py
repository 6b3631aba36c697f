"""Feature pyramid of a backbone, for detectors."""

from typing import NamedTuple

from torch import Tensor, nn


class Level(NamedTuple):
    """A pyramid level: name, channels, stride in input pixels, and source module."""

    name: str
    channels: int
    stride: int
    module: str


def _taps(backbone: nn.Module) -> list[tuple[int, Level]]:
    """Index into `feature_info`, and level; the last four stages are res2 to res5."""
    info = list(getattr(backbone, "feature_info", []))
    stages = list(enumerate(info))
    if info and info[0]["module"] in ("act1", "bn1", "conv1"):
        stages = stages[1:]  # the stem is not a stage
    stages = stages[-4:]
    strides = [level["reduction"] for _, level in stages]
    if len(strides) < 2 or strides != sorted(set(strides)):
        raise ValueError(
            f"{getattr(backbone, 'architecture', type(backbone).__name__)} has no feature pyramid "
            f"(strides {strides}); no detector was built. Use a convolutional network with stages, "
            "such as resnet18."
        )
    return [
        (index, Level(f"res{stage}", level["num_chs"], level["reduction"], level["module"]))
        for stage, (index, level) in enumerate(stages, start=2)
    ]


def pyramid_info(backbone: nn.Module) -> list[Level]:
    """Return the levels, finest first.

    Raises:
        ValueError: the network's feature maps do not shrink from stage to stage.
    """
    return [level for _, level in _taps(backbone)]


def pyramid(backbone: nn.Module, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Return the named levels' feature maps; compute nothing after the last of them."""
    wanted = {level.name: index for index, level in _taps(backbone) if level.name in names}
    maps = backbone.forward_intermediates(
        x, sorted(wanted.values()), intermediates_only=True, stop_early=True
    )
    return dict(zip(wanted, maps, strict=True))
