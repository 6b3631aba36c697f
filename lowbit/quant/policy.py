"""Quantization policies: layers, quantizers, bits, and the side of a layer to quantize.

Papers differ in these choices and seldom state them, so a policy is data with a
fingerprint: two results are comparable only if their fingerprints agree.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief, printable
from lowbit.quant.precision import MAX_BITS, OFF
from lowbit.quant.quantizers.base import Quantizer, find

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
    first: Rule = Rule()
    last: Rule = Rule(FULL, FULL)
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


HEADS_FP = (
    ("*projector*", Rule(FULL, FULL)),
    ("*predictor*", Rule(FULL, FULL)),
)

_NAMED = {
    # SSQL supplement and code (SPEC A.4): 8-bit stem, quantized block outputs, classifier in full
    # precision; a projector's weights have 8 bits while it exists, a predictor is never quantized.
    "ssql": QuantPolicy(
        name="ssql",
        weight=QuantizerSpec(
            "MinMax",
            "channel",
            {"scheme": "symmetric", "range": "call", "scale_gradient": True},
        ),
        activation=QuantizerSpec("MinMax", "tensor", {"scheme": "affine", "range": "observed"}),
        activation_side="output",
        first=Rule(8, 8),
        rules=(
            ("*projector*", Rule(8, FULL)),
            ("*predictor*", Rule(FULL, FULL)),
        ),
    ),
    # Contrastive Quant Eq. 9: dynamic range per tensor, grid through zero, convolution inputs.
    "cq": QuantPolicy(
        name="cq",
        weight=QuantizerSpec("MinMax", "tensor", {"scheme": "zero_anchored", "range": "call"}),
        activation=QuantizerSpec(
            "MinMax", "tensor", {"scheme": "zero_anchored", "range": "running"}
        ),
        first=Rule(FULL, FULL),
        rules=HEADS_FP,
    ),
    # LSQ: one learned step per tensor; first and last layers left in full precision (the paper's 8-bit
    # variant is {"base": "lsq", "first": 8, "last": 8}).
    "lsq": QuantPolicy(
        name="lsq",
        weight=QuantizerSpec("LSQ"),
        activation=QuantizerSpec("LSQ"),
        first=Rule(FULL, FULL),
        rules=HEADS_FP,
    ),
    # LSQ+: learned offsets of activations; first and last layers at 8 bits, as in LSQ's own paper.
    "lsqplus": QuantPolicy(
        name="lsqplus",
        weight=QuantizerSpec("LSQPlus"),
        activation=QuantizerSpec("LSQPlus"),
        first=Rule(8, 8),
        last=Rule(8, 8),
        rules=HEADS_FP,
    ),
    # PACT: clipping levels learned, weights by DoReFa; first and last layers in full precision.
    "pact": QuantPolicy(
        name="pact",
        weight=QuantizerSpec("DoReFa"),
        activation=QuantizerSpec("PACT"),
        first=Rule(FULL, FULL),
        rules=HEADS_FP,
    ),
    # DoReFa: weights through tanh, activations clipped to [0, 1]; first and last in full precision.
    "dorefa": QuantPolicy(
        name="dorefa",
        weight=QuantizerSpec("DoReFa"),
        activation=QuantizerSpec("DoReFa"),
        first=Rule(FULL, FULL),
        rules=HEADS_FP,
    ),
    # EWGS: learned intervals, rounding with a scaled gradient; first and last in full precision.
    "ewgs": QuantPolicy(
        name="ewgs",
        weight=QuantizerSpec("EWGS"),
        activation=QuantizerSpec("EWGS"),
        first=Rule(FULL, FULL),
        rules=HEADS_FP,
    ),
    # Transition-rate scheduling, Eq. 13: weight scales frozen, since moving one moves every
    # transition point; first and last layers in full precision.
    "tr": QuantPolicy(
        name="tr",
        weight=QuantizerSpec("Interval", "tensor", {"learn_scale": False}),
        activation=QuantizerSpec("Interval"),
        first=Rule(FULL, FULL),
        rules=HEADS_FP,
    ),
    # The same with learned weight scales, as used there with plain optimizers. The t-variants freeze
    # the scales of the weights they schedule, so both can be compared under one policy.
    "interval": QuantPolicy(
        name="interval",
        weight=QuantizerSpec("Interval"),
        activation=QuantizerSpec("Interval"),
        first=Rule(FULL, FULL),
        rules=HEADS_FP,
    ),
    # Its binary ResNets: the sign of the weights, activations 0 and 1. It supports only one bit.
    "interval-binary": QuantPolicy(
        name="interval-binary",
        weight=QuantizerSpec("Sign"),
        activation=QuantizerSpec("Interval"),
        first=Rule(FULL, FULL),
        rules=HEADS_FP,
    ),
    # ReActNet: signs of weights times each channel's mean magnitude, signs of shifted activations with
    # Bi-Real Net's polynomial gradient; real-valued shortcuts.
    "reactnet": QuantPolicy(
        name="reactnet",
        weight=QuantizerSpec("Sign", "channel", {"magnitude": "mean", "learn_scale": False}),
        activation=QuantizerSpec(
            "Sign",
            "tensor",
            {"gradient": "polynomial", "interval": "unit", "learn_scale": False},
        ),
        first=Rule(FULL, FULL),
        rules=(*HEADS_FP, ("*downsample*", Rule(FULL, FULL))),
    ),
    # Any-Precision (Yu et al. 2021): DoReFa with weights scaled to their mean magnitude.
    "any-precision": QuantPolicy(
        name="any-precision",
        weight=QuantizerSpec("ScaledDoReFa"),
        activation=QuantizerSpec("DoReFa"),
        first=Rule(FULL, FULL),
        rules=HEADS_FP,
    ),
    # CoQuant (SPEC D.4): PACT activations, bit-nested DoReFa weights; first and last weights at 8
    # bits, the image in full precision.
    "coquant": QuantPolicy(
        name="coquant",
        weight=QuantizerSpec("DoReFa", "tensor", {"scheme": "modified"}),
        activation=QuantizerSpec("PACT", "tensor", {"alpha": 8.0}),
        first=Rule(8, FULL),
        last=Rule(8, 8),
        rules=HEADS_FP,
    ),
    # Post-training quantization without any learning: a scale for each output channel of a weight, one
    # range for each layer's input. Transformers: {"base": "ptq", "ranges": "mse", "smooth": 0.5}.
    "ptq": QuantPolicy(
        name="ptq",
        weight=QuantizerSpec("MinMax", "channel", {"scheme": "symmetric", "range": "call"}),
        activation=QuantizerSpec("MinMax", "tensor", {"scheme": "affine", "range": "observed"}),
        first=Rule(8, 8),
        rules=HEADS_FP,
    ),
}

# For deployment: what they add is the precision that integer hardware needs between layers.
_NAMED["ssql-int8"] = replace(_NAMED["ssql"], name="ssql-int8", integer_only=True)
_NAMED["lsq-int8"] = replace(_NAMED["lsq"], name="lsq-int8", first=Rule(8, 8), integer_only=True)


def list_policies() -> list[str]:
    """Return the names of the papers' policies."""
    return sorted(_NAMED)


def get_policy(spec: "str | QuantPolicy | Mapping[str, Any]") -> QuantPolicy:
    """Return a policy by name, as a variation of a named one, or from its full dictionary.

    Args:
        spec: one of `list_policies`; {"base": name, field: value, ...} to change fields of one; or the
            dictionary `to_dict` returns. `ranges` may be among the fields: how activations' ranges
            are found, "minmax", "moving_average", "percentile", {"percentile": p} or "mse"
            (`lowbit.quant.quantizers.observers`).

    Raises:
        ValueError: unknown name, field, quantizer or rule.

    Example:
        >>> get_policy({"base": "lsq", "first": 8, "last": 8}).first
        Rule(weight=8, activation=8)
    """
    if isinstance(spec, QuantPolicy):
        return spec
    try:
        return _build(spec)
    except TypeError as error:  # a value of another type, or a missing one
        raise ValueError(
            f"{brief(spec)} is not a policy ({printable(str(error))}); nothing was quantized. Write the "
            "name of one, or {base: NAME, FIELD: VALUE, ...}, as in docs/extend.md."
        ) from error


def _build(spec: str | Mapping[str, Any]) -> QuantPolicy:
    if isinstance(spec, str):
        if spec not in _NAMED:
            raise ValueError(
                f"there is no policy {brief(spec)}; nothing was quantized."
                f"{did_you_mean(spec, _NAMED)} Known: {', '.join(sorted(_NAMED))}."
            )
        return _NAMED[spec]
    changes = dict(spec)
    base = changes.pop("base", None)
    ranges = changes.pop("ranges", None)
    known = {f.name for f in fields(QuantPolicy)} | {"ranges"}
    for key in changes:
        if key not in known:
            raise ValueError(
                f"a policy has no field {brief(key)}; nothing was quantized."
                f"{did_you_mean(key, known)} Known: {', '.join(sorted(known))}."
            )
    for side in ("weight", "activation"):
        if isinstance(changes.get(side), Mapping):
            changes[side] = QuantizerSpec(**changes[side])
    for place in ("first", "last"):
        if place in changes:
            changes[place] = Rule.parse(changes[place])
    if "rules" in changes:
        rules = changes["rules"]
        pairs = rules.items() if isinstance(rules, Mapping) else rules
        if not all(len(pair) == 2 for pair in pairs):
            raise TypeError("a rule is not a pair of a layer's name and its bits")
        changes["rules"] = tuple((pattern, Rule.parse(rule)) for pattern, rule in pairs)
    if base is not None:
        changes.setdefault("name", f"{base}-variant")
        policy = replace(get_policy(base), **changes)
    else:
        policy = QuantPolicy(**changes)
    return policy if ranges is None else _with_ranges(policy, ranges)


def _with_ranges(policy: QuantPolicy, ranges: str | Mapping[str, float]) -> QuantPolicy:
    """Return a policy whose activations' ranges are found as `ranges` says."""
    spec = policy.activation
    if spec.kind != "MinMax" or spec.options.get("range", "observed") != "observed":
        raise ValueError(
            f"ranges says how observed ranges are found, and the activations of policy {policy.name!r} "
            "have none; no policy was made. Use a variant of ptq or ssql, or omit it."
        )
    options = {k: v for k, v in spec.options.items() if k not in ("observer", "percentile")}
    if isinstance(ranges, Mapping):
        if set(ranges) != {"percentile"}:
            raise ValueError(
                f"ranges {brief(ranges)} is not a name or {{percentile: p}}; no policy was made. Write "
                "{percentile: 99.9}."
            )
        options |= {"observer": "percentile", "percentile": float(ranges["percentile"])}
    elif ranges != "minmax":  # the default
        options["observer"] = ranges
    spec = replace(spec, options=options)
    spec.build("activation")  # refuses unknown names and shares
    return replace(policy, activation=spec)


def resolve_bits(rule: str | int, target: int) -> int:
    """Return a rule's bits when the precision's bits are `target` (32: everything off)."""
    if rule == FULL or target == OFF:
        return OFF
    return target if rule == TARGET else int(rule)
