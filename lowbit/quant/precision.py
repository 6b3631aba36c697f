"""Precision: the bit-widths of weights and activations."""

import re
from dataclasses import dataclass

OFF = 32  # bits of an unquantized (float32) tensor
MAX_BITS = 16  # widest integer grid of any method here (Contrastive Quant draws up to 16)

_PATTERN = re.compile(r"(?:(\d+)w(\d+)a|w(\d+)a(\d+))", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Precision:
    """Bits of weights and of activations; 32 means unquantized.

    Ordered by weight bits, then activation bits; hashable, so it can key a table of results.

    Example:
        >>> Precision.parse("W4A8"), str(Precision(4, 8)), str(FP)
        (Precision(weight_bits=4, activation_bits=8), '4w8a', 'FP')
        >>> sorted([FP, Precision(8, 8), Precision(3, 3)])[0]
        Precision(weight_bits=3, activation_bits=3)
    """

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        for bits in (self.weight_bits, self.activation_bits):
            if not isinstance(bits, int) or not (1 <= bits <= MAX_BITS or bits == OFF):
                raise ValueError(
                    f"{bits!r} is not a valid bit-width; no precision was created. Use an integer from 1 to "
                    f"{MAX_BITS}, or {OFF} for unquantized."
                )

    @classmethod
    def parse(cls, text: "str | Precision") -> "Precision":
        """Read `4w4a`, `W4A4` (any case) or `FP`.

        Raises:
            ValueError: the text has another form.
        """
        if isinstance(text, Precision):
            return text
        word = str(text).strip()
        if word.upper() in ("FP", "FP32"):
            return FP
        match = _PATTERN.fullmatch(word)
        if match is None:
            raise ValueError(
                f"{text!r} is not a precision; nothing was quantized. Write it as '4w4a' or 'W4A4' "
                "(weight bits, activation bits), or 'FP' for full precision."
            )
        weight_bits, activation_bits = (int(group) for group in match.groups() if group)
        return cls(weight_bits, activation_bits)

    @property
    def is_fp(self) -> bool:
        """Whether neither weights nor activations are quantized."""
        return self.weight_bits == OFF and self.activation_bits == OFF

    def __str__(self) -> str:
        return "FP" if self.is_fp else f"{self.weight_bits}w{self.activation_bits}a"


FP = Precision(OFF, OFF)
