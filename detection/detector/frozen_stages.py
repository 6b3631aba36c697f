"""Build a network for a detector: its norm, its frozen stages, its last stage; for every engine.

A module belongs to a stage by its position: after the previous stage's last module and up to the
stage's own last module.
"""

from collections.abc import Iterator

from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.detection.detector.pyramid_levels import select_levels

NORMS = ("BN", "SyncBN", "FrozenBN")


def build_network(architecture: str, *, norm: str, freeze_at: int, last: str) -> nn.Module:
    """Build a network with random weights, without the layers that no detector runs.

    Args:
        architecture: its name in `backbones`.
        norm: BN, SyncBN, or FrozenBN, whose statistics and affine parameters stay as loaded.
        freeze_at: 0: nothing; 1: the stem's weights and norms are frozen; 2: res2's as well, and so on
            to 5, as Detectron2's MODEL.BACKBONE.FREEZE_AT.
        last: the last stage that is used. Later layers are removed: in DistributedDataParallel a
            parameter without a gradient is an error, and a quantizer without input has no scale.

    Raises:
        ValueError: an unknown norm or stage, or more frozen stages than there are.
    """
    if norm not in NORMS:
        raise ValueError(
            f"there is no backbone norm {norm!r}; no backbone was built. Use one of "
            f"{', '.join(NORMS)}."
        )
    if not 0 <= freeze_at <= 5:
        raise ValueError(
            f"FREEZE_AT is {freeze_at}; no backbone was built. Use 0 (nothing is frozen), 1 (the stem) "
            "or up to 5 (everything)."
        )
    network = create_backbone(architecture)
    if norm == "SyncBN":
        network = convert_sync_batchnorm(network)  # torch's own version drops timm's activations
    elif norm == "FrozenBN":
        network = freeze_batch_norm_2d(network)
    freeze(network, freeze_at)
    cut_off(network, last)
    return network


def freeze(network: nn.Module, freeze_at: int) -> None:
    """Freeze stem and stages in place: weights get no gradient, norms become frozen norms."""
    if not freeze_at:
        return
    stage = select_levels(network, (f"res{max(freeze_at, 2)}",))[0].module
    end = 0 if freeze_at == 1 else 1  # the stem is what comes before res2
    names = [name for name, place in _places(network, stage) if place < end]
    for name in names:
        module = network.get_submodule(name)
        module.requires_grad_(False)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            network.set_submodule(name, freeze_batch_norm_2d(module))


def cut_off(network: nn.Module, last: str) -> None:
    """Replace every layer after the stage `last` by the identity, in place."""
    stage = select_levels(network, (last,))[0].module
    for name in [name for name, place in _places(network, stage) if place > 0]:
        network.set_submodule(name, nn.Identity())


def _places(network: nn.Module, stage: str) -> Iterator[tuple[str, int]]:
    """Yield the name of each layer with parameters, and whether it is before (-1), in (0) or after
    (1) the module `stage`."""
    seen = False
    for name, module in network.named_modules():
        inside = f"{name}.".startswith(f"{stage}.")
        seen = seen or inside
        if list(module.parameters(recurse=False)) or list(module.buffers(recurse=False)):
            yield name, 0 if inside else (1 if seen else -1)
