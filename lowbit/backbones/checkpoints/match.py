"""Find a network's tensors in a file."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lowbit.backbones.checkpoints.bare_names import unwrapped
from lowbit.backbones.checkpoints.file_formats.stored_values import NoWeight
from lowbit.backbones.checkpoints.layouts import LAYOUTS, Layout
from lowbit.backbones.checkpoints.names import rename
from lowbit.backbones.checkpoints.read_file import is_momentum

Containers = Mapping[str, Mapping[str, Tensor | NoWeight]]  # of `read_file.Contents`
Shapes = Mapping[str, torch.Size]  # our names -> shapes

# Of transformers: without its registers a network computes something else.
_TOKENS = ("register_tokens", "reg_token", "storage_tokens")
_CLASSIFIERS = ("head.fc.", "head.pre_logits.")  # of timm, beside a norm that is the backbone's

_NAMINGS = tuple(dict.fromkeys(layout.naming for layout in LAYOUTS))


@dataclass(frozen=True)
class Match:
    """A network's tensors found in a file under one layout.

    Attributes:
        layout: the layout that finds the most tensors; None if none are found.
        place: container and prefix of these tensors, such as `state_dict.encoder_q`; "" where their
            names have no prefix.
        found: our names -> tensors, of any shape.
        mismatched: found tensors of the wrong shape.
        missing: our names of tensors that were not found.
        extra: the file's names of tensors inside the backbone that the network lacks, such as the
            last blocks of a deeper one.
        unused: the file's names of all other tensors, `extra` included.
    """

    layout: Layout | None
    place: str
    found: dict[str, Tensor | NoWeight]
    mismatched: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network and the file matches."""
        return not (self.mismatched or self.missing or self.extra)


def match(containers: Containers, wanted: Shapes, *, prefix: str | None = None) -> Match:
    """Find a network's tensors in a file under the best matching layout.

    Args:
        containers: of `lowbit.backbones.checkpoints.read_file.Contents`.
        wanted: our names -> shapes.
        prefix: take the tensors at this `Match.place`, whatever layout it is; None: where one of
            `LAYOUTS` says.
    """
    best, found, where, score = None, {}, "", (0, 0, False)
    firsts = {path: {name.split(".")[0] for name in t} | {""} for path, t in containers.items()}
    for layout, path in _layouts(containers) if prefix is None else _at(prefix, containers):
        if layout.prefix.split(".")[0] not in firsts[path]:
            continue
        here = _found(containers[path], layout, wanted)
        online = bool(layout.container) or not is_momentum(path)  # DINO's says which it takes
        points = (sum(t.shape == wanted[k] for k, t in here.items()), len(here), online)
        if here and points > score:
            best, found, where, score = layout, here, path, points
    missing = tuple(k for k in wanted if k not in found and not _optional(k))
    mismatched = tuple(k for k, t in found.items() if t.shape != wanted[k])
    used = {_theirs(best, k) for k in found} if best else set()
    unused = tuple(
        name
        for path, tensors in containers.items()
        for name in tensors
        if path != where or name not in used
    )
    extra = _extra(containers[where], best, wanted) if best else ()
    place = _place(where, best.prefix) if best else ""
    return Match(best, place, found, mismatched, missing, extra, unused)


def whole_copies(containers: Containers, wanted: Shapes) -> dict[str, dict[str, Tensor | NoWeight]]:
    """Return the place of every whole copy of a network in a file, whatever its prefix.

    Returns:
        `Match.place` -> the tensors by our names.
    """
    copies: dict[str, dict[str, Tensor]] = {}
    anchor = max(wanted, key=lambda k: k.count("."))  # is the end of fewest other names
    for path, tensors in containers.items():
        for naming in _NAMINGS:
            last = rename(naming, anchor)
            for name in tensors:
                if name != last and not name.endswith(f".{last}"):
                    continue
                layout = Layout("", name.removesuffix(last), naming)
                if not all(_optional(k) or _theirs(layout, k) in tensors for k in wanted):
                    continue
                found = _found(tensors, layout, wanted)
                fits = all(t.shape == wanted[k] for k, t in found.items())
                if fits and not _extra(tensors, layout, wanted):
                    copies.setdefault(_place(path, layout.prefix), found)
    return copies


def _layouts(containers: Containers) -> Iterator[tuple[Layout, str]]:
    for layout in LAYOUTS:
        for path in containers:
            if layout.container in ("", path.split(".")[-1]):
                yield layout, path


def _at(prefix: str, containers: Containers) -> Iterator[tuple[Layout, str]]:
    """Yield the layouts that look for tensors at one place only."""
    written = prefix.strip(".")
    for place in dict.fromkeys((written, unwrapped(f"{written}.").strip("."))):
        for path in containers:
            if path and place != path and not place.startswith(f"{path}."):
                continue
            inside = place.removeprefix(path).strip(".")
            for naming in _NAMINGS:
                yield Layout(f"names after {place!r}", f"{inside}." if inside else "", naming), path


def _place(path: str, prefix: str) -> str:
    return ".".join(filter(None, (path, prefix.strip("."))))


def _theirs(layout: Layout, name: str) -> str:
    return layout.prefix + rename(layout.naming, name)


def _found(tensors: Mapping[str, Tensor | NoWeight], layout: Layout, wanted: Iterable[str]):
    theirs = {k: _theirs(layout, k) for k in wanted}
    return {k: tensors[v] for k, v in theirs.items() if v in tensors}


def _optional(name: str) -> bool:
    """Whether a tensor may be missing: files of older PyTorch versions lack batch norm's counter."""
    return name.endswith("num_batches_tracked")


def _extra(tensors: Iterable[str], layout: Layout, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return file tensors inside the backbone's modules that the network does not have.

    A ResNet-34's file holds every tensor of a ResNet-18: without this, it would load as one. So would a
    transformer with register tokens as one without.
    """
    theirs = {rename(layout.naming, k) for k in wanted}
    modules = {name.split(".")[0] for name in theirs}
    leaves = {name.split(".")[-1] for name in theirs} | {"bias", "gamma"}
    return tuple(
        name
        for name in tensors
        if name.startswith(layout.prefix)
        and (inner := name.removeprefix(layout.prefix)) not in theirs
        and (inner in _TOKENS or inner.split(".")[0] in modules)
        and (inner in _TOKENS or inner.split(".")[-1] in leaves)
        and not inner.startswith(_CLASSIFIERS)
        and "quant" not in inner  # quantizer state
        and not _optional(inner)
    )
