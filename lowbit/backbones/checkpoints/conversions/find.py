"""Find a network's tensors in a file, converted where renaming is not enough."""

from dataclasses import replace

from lowbit.backbones.checkpoints.conversions.timm_conversion import Hub, converted, hub_tensors
from lowbit.backbones.checkpoints.match import Containers, Match, Shapes, match


def find(
    containers: Containers,
    architecture: str,
    wanted: Shapes,
    *,
    prefix: str | None = None,
    hub: Hub | None = None,
) -> Match:
    """Return the match of a file's tensors as they are, or of a conversion that finds more of them.

    Args:
        containers: of `lowbit.backbones.checkpoints.read_file.Contents`.
        architecture: the network, by the name of `create_backbone`.
        wanted: its tensors, our names -> shapes.
        prefix: as in `match`.
        hub: of `hub_tensors`, where several networks are looked for; None: it is made here.
    """
    best = match(containers, wanted, prefix=prefix)
    if best.complete:
        return best
    hub = hub_tensors(containers) if hub is None else hub
    for how, view in converted(containers, architecture, wanted, hub):
        other = match(view, wanted, prefix=prefix)
        if (other.complete, _fitting(other)) > (best.complete, _fitting(best)):
            best = replace(other, layout=replace(other.layout, name=how))
        if best.complete:
            break
    return best


def _fitting(found: Match) -> int:
    return len(found.found) - len(found.mismatched)
