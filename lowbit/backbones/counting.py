"""Size of a named network: operations per forward pass, parameters, stages.

Counted once on torch's meta device, without computing or allocating anything, and cached in
`~/.cache/lowbit-bench/networks.json` ($XDG_CACHE_HOME), so that planning a sweep builds each network once.
"""

import json
import logging
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lowbit.common.atomic_file import atomic
from lowbit.common.cache_folder import cache_folder
from lowbit.common.input_files.regular_file import read_regular

VERSION = 1  # of the counts; raised when a name or size yields different numbers

_LARGEST = 10_000_000  # bytes of the cache; a size has a few hundred

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
    if key not in known:
        known[key] = _counted(architecture, image_size)
        _write(known)
    return known[key]


def _counted(architecture: str, image_size: int) -> NetworkSize:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lowbit.backbones.networks.feature_pyramid import pyramid_info
    from lowbit.backbones.networks.registry import create_backbone
    from lowbit.backbones.networks.without_values import without_values
    from lowbit.quant.structure.unfused_attention import unfused_attention

    with without_values():
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


def _read() -> dict[str, NetworkSize]:
    """Return the sizes in the cache; what is damaged in it is counted again."""
    try:
        entries = json.loads(read_regular(_file(), limit=_LARGEST)).items()
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return {key: size for key, entry in entries if (size := _size(entry)) is not None}


def _size(entry: Any) -> NetworkSize | None:
    try:
        levels = tuple((int(channels), int(stride)) for channels, stride in entry["levels"])
        numbers = {key: int(entry[key]) for key in ("operations", "parameters", "features")}
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return NetworkSize(**numbers, levels=levels)


def _write(known: dict[str, NetworkSize]) -> None:
    sizes = {key: asdict(size) for key, size in known.items()}
    try:
        _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic(_file()) as file:
            file.write(json.dumps(sizes, indent=1, sort_keys=True).encode())
    except OSError as error:
        _logger.debug("The network size could not be cached: %s", error)


def _file() -> Path:
    folder = cache_folder()
    if folder is None:
        raise FileNotFoundError("there is no home folder")
    return folder / "networks.json"
