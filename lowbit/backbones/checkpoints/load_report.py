"""What was found in a file and loaded, and the words of a refusal."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lowbit.backbones.checkpoints.batch_norm_state import norm_state
from lowbit.backbones.checkpoints.guess_network import (
    Guess,
    candidates,
    contradiction,
    guess,
    signature,
)
from lowbit.backbones.checkpoints.match import Match, whole_copies
from lowbit.backbones.checkpoints.read_file import Contents


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

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network and the file matches."""
        return not (self.missing or self.mismatched or self.extra)

    def __str__(self) -> str:
        how = " (inferred from tensor shapes)" if self.guessed else ""
        how = " (as named)" if self.named else how
        lines = [
            f"{self.path}: {self.matched}/{self.total} backbone tensors "
            f"({100 * self.share:.1f} % of parameters), layout {self.format}, "
            f"{self.architecture}{how}"
        ]
        if self.copies:
            lines.append(f"taken from {self.prefix!r}; {_elsewhere(self.copies)}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def describe(
    contents: Contents, architecture: str, m: Match, *, guessed: bool, named: bool
) -> LoadReport:
    """Report what a match would load."""
    network = signature(architecture)
    sizes = {k: network.shapes[k].numel() for k in network.parameters}
    loaded = sum(n for k, n in sizes.items() if k in m.found and k not in m.mismatched)
    warnings = (
        m.layout.caution if m.layout else None,
        norm_state(m.found).warning,
        None if guessed else _doubt(contents, architecture),
    )
    copies = whole_copies(contents.containers, network.shapes)
    return LoadReport(
        path=str(contents.path),
        sha256=contents.sha256,
        format=contents.meta.get("format", m.layout.name if m.layout else "unknown"),
        architecture=architecture,
        matched=len(m.found) - len(m.mismatched),
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
    )


def _differ(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return any(k not in theirs or not torch.equal(tensor, theirs[k]) for k, tensor in ours.items())


def _doubt(contents: Contents, architecture: str) -> str | None:
    """Return what in a file speaks against the network that was named or that it states."""
    stated = contents.meta.get("architecture", architecture)
    if stated != architecture:
        return f"the file states that it holds a {stated}; {architecture} was named and is used"
    if contents.meta:
        return None
    against = contradiction(architecture, contents.containers)
    return against and f"{against}; {architecture} was named and is used"


def undecided(contents: Contents, told: Guess) -> str:
    """Explain why no network was chosen: several match, or none does."""
    if told.complete:
        places = dict.fromkeys(m.place for m in told.complete.values())
        named = [
            f"{name} (at {m.place!r})" if len(places) > 1 else name
            for name, m in told.complete.items()
        ]
        why = (
            "which are different parts of it"
            if len(places) > 1
            else "whose tensors are alike: shapes show neither strides nor attention heads"
        )
        return (
            f"{contents.path} matches {' and '.join(named)}, {why}; nothing was loaded. Name one: "
            f"architecture={next(iter(told.complete))}, for example."
        )
    return (
        f"{contents.path} does not state its network and matches none of the networks it was "
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
        f"{report.path} matches {report.matched} of {report.total} tensors of "
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
    return f"{found} at {' and '.join(map(repr, copies))}: {_take(*copies)}"


def _take(place: str, *_: str) -> str:
    return (
        f"load_backbone(..., prefix={place!r}) takes it, and `lowbit-bench checkpoint convert FILE "
        f"--to safetensors --prefix {place or repr('')}` writes it to a file of its own"
    )


def _names(contents: Contents) -> list[str]:
    return [name for tensors in contents.containers.values() for name in tensors]


def shortened(names: Sequence[str], limit: int = 3) -> str:
    """Join the first names; count the rest."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
