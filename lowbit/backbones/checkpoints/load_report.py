"""What was found in a file and loaded, and the words of a refusal."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lowbit.backbones.checkpoints.batch_norm_state import norm_state
from lowbit.backbones.checkpoints.file_formats.stored_values import NoWeight
from lowbit.backbones.checkpoints.guess_network import (
    Guess,
    Signature,
    candidates,
    contradiction,
    guess,
    signature,
)
from lowbit.backbones.checkpoints.match import Match, whole_copies
from lowbit.backbones.checkpoints.read_file import Contents
from lowbit.common.text import brief, printable

_LONGEST_PATH = 4096
_SHOWN = 5  # copies
_UNVERIFIED = (
    "the file has no checksums, so a damaged value would be loaded as it is; compare its SHA-256 with "
    "the publisher's"
)


@dataclass(frozen=True)
class LoadReport:
    """What `load_backbone` found in a file.

    Attributes:
        path: the file.
        sha256: of its bytes.
        format: recognized layout.
        architecture: network built.
        matched: number of backbone tensors loaded.
        total: number of backbone tensors.
        share: share of the backbone's parameters loaded, 0..1.
        missing: backbone tensors not in the file.
        mismatched: tensors whose shape differs.
        unfit: tensors of the right shape that are no weights -> what they are.
        unused: file tensors outside the backbone (heads, queues).
        meta: metadata stored in the file; empty for files of other projects.
        extra: those of `unused` inside the backbone's modules, such as more blocks.
        guessed: whether the architecture was inferred from tensor shapes alone.
        named: whether the caller named the architecture.
        prefix: where in the file the loaded tensors are: container and prefix, `state_dict.encoder_q`.
        copies: where other whole copies of the network are, with other values: the momentum network's.
        warnings: what a user should know before trusting the numbers.
    """

    path: str
    sha256: str
    format: str
    architecture: str
    matched: int
    total: int
    share: float
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    guessed: bool = False
    named: bool = False
    prefix: str = ""
    copies: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unfit: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network and the file matches."""
        return not (self.missing or self.mismatched or self.extra or self.unfit)

    def __str__(self) -> str:
        how = " (inferred from tensor shapes)" if self.guessed else ""
        how = " (as named)" if self.named else how
        lines = [
            f"{printable(self.path, _LONGEST_PATH)}: {self.matched}/{self.total} backbone tensors "
            f"({100 * self.share:.1f} % of parameters), layout {printable(self.format)}, "
            f"{self.architecture}{how}"
        ]
        if self.copies:
            lines.append(f"taken from {brief(self.prefix)}; {_elsewhere(self.copies)}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def describe(
    contents: Contents, architecture: str, m: Match, *, guessed: bool, named: bool
) -> LoadReport:
    """Report what a match would load."""
    network = signature(architecture)
    unfit = _unfit(m, network)
    left_out = {*m.mismatched, *unfit}
    sizes = {k: network.shapes[k].numel() for k in network.parameters}
    loaded = sum(n for k, n in sizes.items() if k in m.found and k not in left_out)
    warnings = (
        m.layout.caution if m.layout else None,
        norm_state({k: t for k, t in m.found.items() if k not in left_out}).warning,
        None if contents.verified else _UNVERIFIED,
        None if guessed else _doubt(contents, architecture),
    )
    copies = whole_copies(contents.containers, network.shapes)
    return LoadReport(
        path=str(contents.path),
        sha256=contents.sha256,
        format=contents.meta.get("format", m.layout.name if m.layout else "unknown"),
        architecture=architecture,
        matched=len(m.found) - len(left_out),
        total=len(network.shapes),
        share=loaded / sum(sizes.values()),
        missing=m.missing,
        mismatched=m.mismatched,
        unused=m.unused,
        meta=contents.meta,
        extra=m.extra,
        guessed=guessed,
        named=named,
        prefix=m.place,
        copies=tuple(
            place
            for place, found in copies.items()
            if place != m.place and (m.layout is None or _differ(found, m.found))
        ),
        warnings=tuple(warning for warning in warnings if warning),
        unfit=unfit,
    )


def _unfit(m: Match, network: Signature) -> dict[str, str]:
    """Return what was found in place of weights: not loaded, though its shape is right."""
    return {
        k: str(t.dtype).removeprefix("torch.") + " numbers" if isinstance(t, Tensor) else t.kind
        for k, t in m.found.items()
        if k not in m.mismatched and not is_fit(t, floating=k in network.floating)
    }


def is_fit(tensor: Tensor | NoWeight, *, floating: bool = True) -> bool:
    """Whether a tensor can be loaded as weights, or else (not floating) as counters or indices."""
    if not isinstance(tensor, Tensor) or tensor.dtype == torch.bool:
        return False
    return tensor.is_floating_point() or not floating


def _differ(ours: Mapping[str, Tensor | NoWeight], theirs: Mapping[str, Tensor | NoWeight]) -> bool:
    return any(k not in theirs or not _equal(tensor, theirs[k]) for k, tensor in ours.items())


def _equal(ours: Tensor | NoWeight, theirs: Tensor | NoWeight) -> bool:
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    return ours is theirs


def _doubt(contents: Contents, architecture: str) -> str | None:
    """Return what in a file speaks against the network that was named or that it states."""
    stated = contents.meta.get("architecture", architecture)
    if stated != architecture:
        return (
            f"the file states that it holds a {printable(stated)}; {architecture} was named and is "
            "used"
        )
    if contents.meta:
        return None
    against = contradiction(architecture, contents.containers)
    return against and f"{against}; {architecture} was named and is used"


def undecided(contents: Contents, told: Guess) -> str:
    """Explain why no network was chosen: several match, or none does."""
    if told.complete:
        places = dict.fromkeys(m.place for m in told.complete.values())
        named = [
            f"{name} (at {brief(m.place)})" if len(places) > 1 else name
            for name, m in told.complete.items()
        ]
        why = (
            "which are different parts of it"
            if len(places) > 1
            else "whose tensors are alike: shapes show neither strides nor attention heads"
        )
        return (
            f"{contents.shown} matches {' and '.join(named)}, {why}; nothing was loaded. Name one: "
            f"architecture={next(iter(told.complete))}, for example."
        )
    return (
        f"{contents.shown} does not state its network and matches none of the networks it was "
        f"compared with; nothing was loaded. {_nearest(contents, told)} Name the network: "
        "architecture=resnet50, for example; any timm model name works."
    )


def refusal(report: LoadReport, contents: Contents) -> str:
    """Explain why a file does not fill a network."""
    reasons = []
    if report.missing:
        reasons.append(f"not in the file: {shortened(report.missing)}")
    if report.mismatched:
        reasons.append(f"wrong shape: {shortened(report.mismatched)}")
    if report.unfit:
        kinds = [f"{name} ({kind})" for name, kind in report.unfit.items()]
        reasons.append(f"not weights: {shortened(kinds)}")
    if report.extra:
        reasons.append(f"in the file but not in the network: {shortened(report.extra)}")
    told = guess(contents.containers)
    others = [name for name in told.complete if name != report.architecture]
    if report.copies:
        hint = f"But {_elsewhere(report.copies)}."
    elif others:
        hint = f"It is a complete {' or '.join(others)}."
    elif told.nearest == report.architecture:
        hint = f"The file's names begin with {shortened(_names(contents))}."
    else:
        hint = _nearest(contents, told)
    partly = ", or set allow_partial to score it anyway" if report.matched else ""
    return (
        f"{contents.shown} matches {report.matched} of {report.total} tensors of "
        f"{report.architecture} ({100 * report.share:.1f} % of parameters); nothing was loaded. "
        f"{'; '.join(reasons)}. {hint} Check the architecture{partly}."
    )


def _nearest(contents: Contents, told: Guess) -> str:
    """Return where a file's network is, or to which network it is nearest."""
    names = _names(contents)
    for name in candidates(contents.containers):
        if copies := whole_copies(contents.containers, signature(name).shapes):
            return f"It holds a whole {name} under a prefix of no known layout: {_take(*copies)}."
    m = told.match
    same = len(m.found) - len(m.mismatched)
    if not same:
        return f"No known network has such names: {shortened(names)}."
    extra = f" and lacks {len(m.extra)} of the file's" if m.extra else ""
    total = same + len(m.missing) + len(m.mismatched)
    return f"The nearest is {told.nearest}: {same} of {total} tensors{extra}."


def _elsewhere(copies: Sequence[str]) -> str:
    found = "another whole copy is" if len(copies) == 1 else "other whole copies are"
    return f"{found} at {' and '.join(map(brief, copies[:_SHOWN]))}: {_take(*copies)}"


def _take(place: str, *_: str) -> str:
    return (
        f"load_backbone(..., prefix={brief(place)}) takes it, and `lowbit-bench checkpoint convert FILE "
        f"--to safetensors --prefix {shlex.quote(printable(place))}` writes it to a file of its own"
    )


def _names(contents: Contents) -> list[str]:
    return [name for tensors in contents.containers.values() for name in tensors]


def shortened(names: Sequence[str], limit: int = 3) -> str:
    """Join the first names, escaped; count the rest."""
    rest = len(names) - limit
    return ", ".join(map(printable, names[:limit])) + (f" and {rest} more" if rest > 0 else "")
