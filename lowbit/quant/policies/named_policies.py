"""The policies of the papers, and those of deployment and post-training quantization, by name."""

from dataclasses import replace

from lowbit.quant.policies.policy import QuantizerSpec, QuantPolicy
from lowbit.quant.policies.rule import FULL, IN_FULL, Rule

HEADS_FP = (
    ("*projector*", IN_FULL),
    ("*predictor*", IN_FULL),
)

NAMED_POLICIES = {
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
            ("*predictor*", IN_FULL),
        ),
    ),
    # Contrastive Quant Eq. 9: dynamic range per tensor, grid through zero, convolution inputs.
    "cq": QuantPolicy(
        name="cq",
        weight=QuantizerSpec("MinMax", "tensor", {"scheme": "zero_anchored", "range": "call"}),
        activation=QuantizerSpec(
            "MinMax", "tensor", {"scheme": "zero_anchored", "range": "running"}
        ),
        first=IN_FULL,
        rules=HEADS_FP,
    ),
    # LSQ: one learned step per tensor; first and last layers left in full precision (the paper's 8-bit
    # variant is {"base": "lsq", "first": 8, "last": 8}).
    "lsq": QuantPolicy(
        name="lsq",
        weight=QuantizerSpec("LSQ"),
        activation=QuantizerSpec("LSQ"),
        first=IN_FULL,
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
        first=IN_FULL,
        rules=HEADS_FP,
    ),
    # DoReFa: weights through tanh, activations clipped to [0, 1]; first and last in full precision.
    "dorefa": QuantPolicy(
        name="dorefa",
        weight=QuantizerSpec("DoReFa"),
        activation=QuantizerSpec("DoReFa"),
        first=IN_FULL,
        rules=HEADS_FP,
    ),
    # EWGS: learned intervals, rounding with a scaled gradient; first and last in full precision.
    "ewgs": QuantPolicy(
        name="ewgs",
        weight=QuantizerSpec("EWGS"),
        activation=QuantizerSpec("EWGS"),
        first=IN_FULL,
        rules=HEADS_FP,
    ),
    # Transition-rate scheduling, Eq. 13: weight scales frozen, since moving one moves every
    # transition point; first and last layers in full precision.
    "tr": QuantPolicy(
        name="tr",
        weight=QuantizerSpec("Interval", "tensor", {"learn_scale": False}),
        activation=QuantizerSpec("Interval"),
        first=IN_FULL,
        rules=HEADS_FP,
    ),
    # The same with learned weight scales, as used there with plain optimizers. The t-variants freeze
    # the scales of the weights they schedule, so both can be compared under one policy.
    "interval": QuantPolicy(
        name="interval",
        weight=QuantizerSpec("Interval"),
        activation=QuantizerSpec("Interval"),
        first=IN_FULL,
        rules=HEADS_FP,
    ),
    # Its binary ResNets: the sign of the weights, activations 0 and 1. It supports only one bit.
    "interval-binary": QuantPolicy(
        name="interval-binary",
        weight=QuantizerSpec("Sign"),
        activation=QuantizerSpec("Interval"),
        first=IN_FULL,
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
        first=IN_FULL,
        rules=(*HEADS_FP, ("*downsample*", IN_FULL)),
    ),
    # Any-Precision (Yu et al. 2021): DoReFa with weights scaled to their mean magnitude.
    "any-precision": QuantPolicy(
        name="any-precision",
        weight=QuantizerSpec("ScaledDoReFa"),
        activation=QuantizerSpec("DoReFa"),
        first=IN_FULL,
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
NAMED_POLICIES["ssql-int8"] = replace(NAMED_POLICIES["ssql"], name="ssql-int8", integer_only=True)
NAMED_POLICIES["lsq-int8"] = replace(
    NAMED_POLICIES["lsq"], name="lsq-int8", first=Rule(8, 8), integer_only=True
)
