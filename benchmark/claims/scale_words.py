"""Scales and sides in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lowbit.benchmark.claims.result_rows import LABEL, ResultRow
from lowbit.benchmark.claims.scales import Sides

_SHOWN = 2  # facts in a name
_UNSAID = ("split_sha256", "policy_fingerprint")  # which say nothing to people


@dataclass(frozen=True)
class Scale:
    """At which scale a claim was tried; "" where there is nothing to say.

    Attributes:
        network: of the backbone.
        data: the image set that is scored on.
        protocol: how, with all settings that make it a protocol of its own.
        length: how long the scored network trained.
        pretraining: how long its backbone did, and on what.
        a, b: what the sides are called here.
        seeds: how many pairs there are, in words.
    """

    network: str
    data: str
    protocol: str
    length: str
    pretraining: str
    a: str
    b: str
    seeds: str

    def __str__(self) -> str:
        pretrained = f"pretrained {self.pretraining}" if self.pretraining else ""
        protocol = ", ".join(filter(None, (self.protocol, self.length)))
        sides = " against ".join(filter(None, (self.a, self.b)))
        return "; ".join(
            filter(None, (self.network, pretrained, self.data, protocol, sides, self.seeds))
        )


def describe_scale(sides: Sides, a: str, b: str, seeds: str) -> Scale:
    """Say at which scale sides were compared; `a` and `b` are what they are called."""
    facts = sides.a.facts
    lengths = [row.length for row in (sides.a, sides.b) if row is not None]
    pretrainings = [row.pretraining for row in (sides.a, sides.b) if row is not None]
    pretrain = facts["task"] == "pretrain"
    protocols = [_protocol(row) for row in (sides.a, sides.a_less)]
    return Scale(
        network=facts["architecture"],
        data=facts["dataset"],
        protocol="" if pretrain else " less ".join(dict.fromkeys(protocols)),
        length=_both(lengths),
        pretraining="" if pretrain else _both(pretrainings),
        a=a,
        b=b,
        seeds=seeds,
    )


def _protocol(row: ResultRow) -> str:
    """Name a protocol with its settings; an adaptive one without its method, which is a side."""
    name = row.facts["protocol"]
    return str(name if name == "adaptive" else row.facts[LABEL])


def _both(texts: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(filter(None, texts)))


def name_sides(sides: Sequence[Sides]) -> list[tuple[str, str]]:
    """Name the sides of trials; where two rows of a scale would share a name, by what they differ in."""
    rows = {id(row): row for each in sides for row in (each.a, each.b) if row is not None}
    alike: dict[tuple, list[int]] = {}
    for key, row in rows.items():
        scale = (row.facts["dataset"], row.facts[LABEL], row.length, row.pretraining)
        alike.setdefault((_name(row), *scale), []).append(key)
    names = {}
    for (name, *_), keys in alike.items():
        facts = sorted({fact for key in keys for fact in rows[key].facts})
        differing = [
            fact for fact in facts if len({repr(rows[key].facts.get(fact)) for key in keys}) > 1
        ]
        for key in keys:
            said = _facts(rows[key], differing)
            names[key] = f"{name} [{said}]" if said else name
    return [_without_backbone(each, names) for each in sides]


def _without_backbone(sides: Sides, names: Mapping[int, str]) -> tuple[str, str]:
    """Return the names of both sides without the backbone, where it is the same."""
    a, b = (names[id(row)] if row else "" for row in (sides.a, sides.b))
    shared = f"{sides.a.name}, "
    if a.startswith(shared) and b.startswith(shared):
        return a.removeprefix(shared), b.removeprefix(shared)
    return a, b


def _facts(row: ResultRow, names: Sequence[str]) -> str:
    said = [name for name in names if name not in _UNSAID][:_SHOWN]
    return ", ".join(
        f"{name.rpartition('.')[2].rstrip('_')} {value_text(row.facts.get(name))}" for name in said
    )


def _name(row: ResultRow) -> str:
    """Name a row by how its network was trained, where that is what protocols compare; else its backbone."""
    if row.facts["task"] == "pretrain":
        return str(row.facts["method"])
    if row.facts["protocol"] == "adaptive":
        return str(row.facts.get("adaptive.method", row.name))
    return row.name if row.facts["training"] == "-" else f"{row.name}, {row.facts['training']}"


def value_text(value: object) -> str:
    """Write a fact's value for people.

    Example:
        >>> value_text(["interval", "tr"]), value_text([8, 4]), value_text(0.005)
        ('interval or tr', '[8, 4]', '0.005')
    """
    if isinstance(value, list | tuple) and value and isinstance(value[0], str):
        return " or ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
