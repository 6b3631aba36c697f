"""Size of a named network: operations per forward pass, parameters, stages.

Counted once on torch's meta device, without computing or allocating anything, and cached in
`~/.cache/lowbit-bench/networks.json` ($XDG_CACHE_HOME), so that planning a sweep builds each network once.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from lowbit.common.atomic_file import atomic

VERSION = 1  # of the counts; raised when a name or size yields different numbers

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkSize:
    """Size of a network.

    Attributes:
        operations: per image's forward pass, attention included; a multiply-add counts as two.
        parameters: number of trained values.
        features: width of the pooled features.
        levels: (channels, stride) of the last four stages; empty without a pyramid.
    """

    operations: int
    parameters: int
    features: int
    levels: tuple[tuple[int, int], ...]


@cache
def network_size(architecture: str, image_size: int) -> NetworkSize:
    """Return the size of a network on square images.

    Raises:
        ValueError: unknown network, or it does not accept images of this size.

    Example:
        >>> network_size("resnet18", 224).parameters
        11176512
    """
    key = f"{architecture} {image_size} {_versions()}"
    known = _read()
    if key in known:
        levels = tuple(map(tuple, known[key]["levels"]))
        return NetworkSize(**{**known[key], "levels": levels})
    size = _counted(architecture, image_size)
    _write({**known, key: asdict(size)})
    return size


def _counted(architecture: str, image_size: int) -> NetworkSize:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lowbit.backbones.networks.feature_pyramid import pyramid_info
    from lowbit.backbones.networks.registry import create_backbone
    from lowbit.common.unfused_attention import unfused_attention

    with torch.device("meta"):
        network = create_backbone(architecture).eval()
    try:
        image = torch.empty(1, 3, image_size, image_size, device="meta")
        with torch.no_grad(), unfused_attention(), FlopCounterMode(display=False) as counter:
            network(image)
    except (AssertionError, RuntimeError) as error:  # a transformer accepts one image size
        raise ValueError(
            f"{architecture} does not accept images of {image_size} pixels ({error}); nothing was counted."
        ) from error
    try:
        levels = tuple((level.channels, level.stride) for level in pyramid_info(network))
    except ValueError:
        levels = ()
    return NetworkSize(
        operations=counter.get_total_flops(),
        parameters=sum(p.numel() for p in network.parameters()),
        features=network.num_features,
        levels=levels,
    )


def _versions() -> str:
    from importlib.metadata import version

    return f"{VERSION}/timm {version('timm')}"


def _file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(folder) / "lowbit-bench" / "networks.json"


def _read() -> dict[str, dict]:
    try:
        return json.loads(_file().read_text())
    except (OSError, ValueError):  # missing or damaged: count again
        return {}


def _write(known: dict[str, dict]) -> None:
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        with atomic(_file()) as file:
            file.write(json.dumps(known, indent=1, sort_keys=True).encode())
    except OSError as error:
        _logger.debug("The network size could not be cached: %s", error)
