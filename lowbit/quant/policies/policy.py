"""Quantization policies: layers, quantizers, bits, and the side of a layer to quantize.

Papers differ in these choices and seldom state them, so a policy is data with a
fingerprint: two results are comparable only if their fingerprints agree.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from lowbit.quant.policies.rule import AT_TARGET, FULL, IN_FULL, Rule
from lowbit.quant.quantizers.base import Quantizer, find


@dataclass(frozen=True)
class QuantizerSpec:
    """A registered quantizer's name, granularity and options."""

    kind: str
    granularity: str = "tensor"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        find(self.kind)
        if self.granularity not in ("tensor", "channel"):
            raise ValueError(
                f"granularity {self.granularity!r} is unknown; no policy was made. "
                "Use 'tensor' or 'channel'."
            )

    def build(self, role: str, **place: Any) -> Quantizer:
        """Make the quantizer for a "weight" or an "activation"; `place` holds the other arguments of `Quantizer`.

        Raises:
            ValueError: the quantizer rejects the options.
        """
        try:
            return find(self.kind)(role=role, **place, **self.options)
        except TypeError as error:
            raise ValueError(
                f"quantizer {self.kind} cannot be made with options {self.options} ({error}); nothing "
                "was quantized. Correct the policy's options."
            ) from error


@dataclass(frozen=True)
class QuantPolicy:
    """Which layers are quantized, how, and to which bits.

    Attributes:
        name: shown on the board; not part of the fingerprint.
        weight: quantizer of convolution and linear weights.
        activation: quantizer of activations.
        activation_side: "input" quantizes the input of a convolution or linear layer (LSQ, TR, CQ);
            "output" quantizes the output of an activation module, so that a residual block's sum, and
            with it the shortcut, is quantized (SSQL), and the output of a layer that neither a norm nor
            an activation follows (a transformer's patch embedding, qkv, projections).
        first: rule of the first convolution (and the first activation module).
        last: rule of the classifier or the predictors of a detector.
        rules: (pattern, rule) pairs; the first pattern matching a layer's dotted name overrides
            all other rules.
        integer_only: whether the image and every tensor that a residual addition reads are rounded to 8
            bits too, wherever anything is quantized, so that the network computes on integers alone.
        smooth: SmoothQuant's alpha, 0 to 1 (0.5 in its paper): `calibrate` divides the outputs of norms
            that only linear layers read, by channel, and multiplies these layers' weights
            (`lowbit.quant.smoothing`); None leaves both as they are.
    """

    name: str
    weight: QuantizerSpec
    activation: QuantizerSpec
    activation_side: str = "input"
    first: Rule = AT_TARGET
    last: Rule = IN_FULL
    rules: tuple[tuple[str, Rule], ...] = ()
    integer_only: bool = False
    smooth: float | None = None

    def __post_init__(self) -> None:
        if self.activation_side not in ("input", "output"):
            raise ValueError(
                f"activation_side {self.activation_side!r} is unknown; no policy was made. "
                "Use 'input' or 'output'."
            )
        for side in ("weight", "activation"):
            if not isinstance(getattr(self, side), QuantizerSpec):
                raise TypeError(
                    f"{side} is {getattr(self, side)!r}, not a quantizer: {{kind: ...}}"
                )
        if not isinstance(self.integer_only, bool):
            raise TypeError(f"integer_only is {self.integer_only!r}, not true or false")
        if self.integer_only and FULL in (self.first.weight, self.first.activation):
            raise ValueError(
                "integer_only leaves no layer in full precision, but `first` does; no policy was made. "
                "Set first to 8, or integer_only to false."
            )
        if self.smooth is not None:
            self._check_smoothing()
        for pattern, _ in self.rules:
            if not isinstance(pattern, str):
                raise TypeError(f"a rule is for {pattern!r}, not for a layer's name")

    def _check_smoothing(self) -> None:
        if type(self.smooth) not in (int, float) or not 0 <= self.smooth <= 1:
            raise ValueError(
                f"smooth is {self.smooth!r}, not a number from 0 to 1; no policy was made. Use 0.5, or "
                "null for no smoothing."
            )
        if self.activation_side != "input":
            raise ValueError(
                "smooth moves the range of layers' inputs into their weights, and this policy quantizes "
                "outputs; no policy was made. Use a policy that quantizes inputs, such as ptq, or omit it."
            )
        object.__setattr__(self, "smooth", float(self.smooth))  # 1 and 1.0 are one policy

    def rule(self, name: str, *, first: bool, last: bool) -> Rule:
        """Return the rule of the layer called `name`."""
        for pattern, rule in self.rules:
            if fnmatchcase(name, pattern):
                return rule
        if first:
            return self.first
        return self.last if last else Rule()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `get_policy` accepts."""
        data = asdict(self)
        data["rules"] = [[pattern, rule] for pattern, rule in data["rules"]]
        return data

    @property
    def fingerprint(self) -> str:
        """Hash of everything but the name, and of the quantizers' versions, twelve hex digits."""
        data = {key: value for key, value in self.to_dict().items() if key != "name"}
        if not self.integer_only:  # fields younger than most results
            del data["integer_only"]
        if self.smooth is None:
            del data["smooth"]
        for side in ("weight", "activation"):
            version = find(data[side]["kind"]).version
            if version > 1:
                data[side]["version"] = version
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
