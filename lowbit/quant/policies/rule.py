"""The bits of one layer under a policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowbit.quant.precision import MAX_BITS, OFF

TARGET = "target"  # the bits of the current precision
FULL = "fp"  # never quantized


@dataclass(frozen=True)
class Rule:
    """Bits of one layer's weight and activation: "target", "fp", or a fixed number.

    Example:
        >>> Rule.parse(8), Rule.parse({"weight": 8, "activation": "fp"})
        (Rule(weight=8, activation=8), Rule(weight=8, activation='fp'))
    """

    weight: str | int = TARGET
    activation: str | int = TARGET

    def __post_init__(self) -> None:
        for bits in (self.weight, self.activation):
            if bits not in (TARGET, FULL) and not (type(bits) is int and 1 <= bits <= MAX_BITS):
                raise ValueError(
                    f"{bits!r} is not a bit rule; no policy was made. Use {TARGET!r}, {FULL!r} "
                    f"or a number from 1 to {MAX_BITS}."
                )

    @classmethod
    def parse(cls, value: "Rule | str | int | Mapping[str, Any]") -> "Rule":
        """Read "target", "fp", a number, or {weight: ..., activation: ...}."""
        if isinstance(value, Rule):
            return value
        return cls(**value) if isinstance(value, Mapping) else cls(value, value)


AT_TARGET, IN_FULL = Rule(), Rule(FULL, FULL)


def resolve_bits(rule: str | int, target: int) -> int:
    """Return a rule's bits when the precision's bits are `target` (32: everything off)."""
    if rule == FULL or target == OFF:
        return OFF
    return target if rule == TARGET else int(rule)
