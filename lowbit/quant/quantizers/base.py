"""Base class and registry of quantizers."""

import importlib
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lowbit.common.suggest import did_you_mean
from lowbit.quant.precision import OFF

QUANTIZERS: dict[str, type["Quantizer"]] = {}
"""Quantizers by their names in policies. A class is registered with `@register`; its constructor
takes the arguments of `Quantizer` and its own keyword options, which a policy's YAML may set."""


def find(name: str) -> type["Quantizer"]:
    """Return the quantizer called `name`, or import one given as `module:Class`.

    Raises:
        ValueError: no such quantizer.
        TypeError: the name is not text.
    """
    if not isinstance(name, str):
        raise TypeError(f"a quantizer is named by text, not {name!r}")
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"quantizer {name!r} cannot be imported ({error}); no policy was made. Put its file "
                "on PYTHONPATH and write module:Class."
            ) from error
        if not (isinstance(found, type) and issubclass(found, Quantizer)):
            raise ValueError(
                f"{name!r} is not a quantizer; no policy was made. It must be a subclass of "
                "lowbit.quant.Quantizer."
            )
        return found
    if name not in QUANTIZERS:
        raise ValueError(
            f"there is no quantizer {name!r}; no policy was made."
            f"{did_you_mean(name, QUANTIZERS)} Known: {', '.join(sorted(QUANTIZERS))}; your own as "
            "module:Class."
        )
    return QUANTIZERS[name]


def register(cls: type["Quantizer"]) -> type["Quantizer"]:
    """Make `cls` available to policies under its class name."""
    QUANTIZERS[cls.__name__] = cls
    return cls


def is_recomputation() -> bool:
    """Whether this forward pass repeats an earlier one for a backward pass that is running.

    Activation checkpointing does so, in all its forms; running statistics must not move then.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class LinearCodes(NamedTuple):
    """Codes round(clip(x γ/s, low, high)), half to even, with one scale s for the whole tensor.

    s is `ratio` times the magnitude of the parameter `q_scale`.
    """

    low: int
    high: int
    gamma: int = 1
    ratio: float = 1.0


class TransitionPoints(NamedTuple):
    """Weights in units of the step between levels, and where their codes change.

    The points are `first`, `first` + 1, ..., `last`.
    """

    weights: Tensor
    first: float
    last: float


class Quantizer(nn.Module):
    """Base class of quantizers; the identity at 32 bits.

    Everything the rest of the project uses of a quantizer is defined here, with a default. A new
    quantizer overrides only what differs.

    Attributes:
        bits: current bit-width; 32 turns the quantizer off exactly.
        signed: whether codes can be negative.
        granularity: "tensor" (one scale) or "channel" (one for each index of dimension 0).
        scale: the positive scale, shape (1,) or broadcastable over dimension 0.
        observing: while True, forward passes record their input and do not quantize.

    Args:
        bits: initial bit-width.
        channels: None for one scale per tensor, else the size of dimension 0.
        ndim: number of dimensions of the tensors, which shapes a stored per-channel scale.
        role: "weight" or "activation" (whose dimension 0 counts samples).
    """

    rescales = False
    """Whether the output's range is fixed, so that the input's scale is lost."""

    moves_with_weights = False
    """Whether levels are computed from the weight itself, so that its transition points change with it."""

    positive_only = False
    """Whether activations below zero become zero."""

    fills_unit_range = False
    """Whether quantized weights fill [-1, 1] whatever the magnitude of the weights, though `gain` is 1."""

    learned_clip = False
    """Whether `q_scale` is a clipping level, which starts at the attribute `alpha` if that is set.

    A network of many bit-widths learns one for each of them."""

    scale_lr_factor = 0.1
    """Learning rate of the learned parameters over the network's, where a recipe does not state it.

    A tenth where the gradient is taken as it is (transition-rate scheduling's supplement); 1 where the
    quantizer scales it itself (LSQ, LSQ+)."""

    version = 1
    """Raised when the same options give other numbers; part of a policy's fingerprint."""

    mirrored: str | None = None
    """Name of the buffer that holds the attributes a forward pass branches on."""

    _read: tuple[int, int] | None = None  # identity and version of that buffer when it was read

    def __init__(
        self,
        *,
        bits: int = OFF,
        channels: int | None = None,
        ndim: int = 1,
        role: str = "activation",
    ) -> None:
        super().__init__()
        self._bits = bits
        self.channels, self.ndim, self.role = channels, ndim, role
        self.signed = False
        self.initialized = False
        self.observing = False

    @property
    def ready(self) -> bool:
        """Whether tensors can be quantized now: the scale is set, or taken from each tensor."""
        return self.initialized

    @property
    def bits(self) -> int:
        return self._bits

    @bits.setter
    def bits(self, bits: int) -> None:
        self._bits = bits

    @property
    def granularity(self) -> str:
        return "tensor" if self.channels is None else "channel"

    @property
    def scale(self) -> Tensor:
        """The scale at the current bit-width."""
        raise NotImplementedError

    @property
    def latent_step(self) -> Tensor | None:
        """Width of a code's interval of inputs, of which `code` times it is the middle.

        None unless it depends on a learned scale alone. Differentiable in that scale.
        """
        return None

    def scale_gradient(self, x: Tensor) -> float:
        """Factor that the gradient of the scale of `x` is multiplied by."""
        return 1.0

    @property
    def gain(self) -> Tensor | float:
        """About x / forward(x): the factor that restores the input's scale."""
        return 1.0

    @property
    def ranges_need_full_precision(self) -> bool:
        """Whether ranges are fixed from full-precision passes (`observe`) and never change afterwards."""
        return False

    @property
    def depends_on_batch(self) -> bool:
        """Whether the ranges of two tensors differ from those of the two as one batch."""
        return False

    @property
    def code_distance(self) -> int:
        """The difference of neighbouring codes: 2 where they are -1 and +1."""
        return 1

    @property
    def has_nested_codes(self) -> bool:
        """Whether lower-bit codes are the top bits of higher-bit ones, and codes alone give values."""
        return False

    @property
    def active(self) -> bool:
        """Whether a forward pass quantizes."""
        return self._bits < OFF and not self.observing

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` rounded to the grid, or `x` itself while off or observing."""
        if self.observing:
            self.observe(x.detach())
            return x
        if self._bits >= OFF or x.numel() == 0:
            return x
        if not (self.ready and self.training):
            self.follow_copies()
            if not self.ready:
                self._initialize_late(x.detach())
        return self._quantize(x)

    def rectified(self, x: Tensor) -> Tensor | None:
        """Return `forward(relu(x))` from one pass over `x`; None if there is no such pass for it."""
        return None

    def _quantize(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def codes(self, x: Tensor) -> Tensor:
        """Return the integer code of each element, in the narrowest type that fits."""
        raise NotImplementedError

    def levels(self) -> tuple[int, int] | None:
        """Return the lowest and the highest code, or None if unknown."""
        return None

    def linear_codes(self) -> LinearCodes | None:
        """Return the constants of linear codes; None if the codes are not linear.

        Kernels then compute the codes instead of `codes`, with the scale of `LearnedScale`. A subclass
        that overrides `codes` must override this too.
        """
        return None

    def transition_points(self, weight: Tensor) -> TransitionPoints | None:
        """Return the points where the codes of `weight` change, or None if unknown.

        With `levels`, the points lie halfway between the levels of `grid`.
        """
        levels = self.levels()
        if levels is None:
            return None
        step, offset = self.grid(weight)
        return TransitionPoints((weight - offset) / step, levels[0] + 0.5, levels[1] - 0.5)

    def grid(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return (step, offset) of the grid for `x`: forward(x) is codes(x) * step + offset."""
        return self.scale, 0.0

    def follow_copies(self) -> None:
        """Read the attributes again if something wrote to their buffer, as averages and `copy_` do."""
        if self.mirrored is None or torch.compiler.is_compiling():
            return
        buffer = getattr(self, self.mirrored)
        if not buffer.is_meta and (buffer.is_inference() or self._read != _written(buffer)):
            self.follow_buffers()
            self._note_read()

    def follow_buffers(self) -> None:
        """Set the attributes (initialized, signed) from the buffer `mirrored`."""

    def _note_read(self) -> None:
        """Remember that the attributes agree with their buffer."""
        buffer = getattr(self, self.mirrored)
        self._read = None if buffer.is_inference() else _written(buffer)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_read": None}  # a copy has a buffer of its own

    def reset(self) -> None:
        """Discard all observations."""

    def observe(self, x: Tensor) -> None:
        """Add a batch to the statistics the scale is set from."""

    def finish(self) -> None:
        """Set the scale from the observations."""

    def init_from(self, x: Tensor) -> None:
        """Set the scale from `x` alone."""
        if x.numel() == 0:
            return
        self.reset()
        self.observe(x.detach())
        self.finish()

    def _initialize_late(self, x: Tensor) -> None:
        if not self.training:
            raise RuntimeError(
                f"{type(self).__name__} has no scale yet; nothing was quantized. Call "
                "lowbit.quant.calibrate(model, batches) on training images before evaluating."
            )
        self.init_from(x)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """(1,), or (C, 1, ...): never 0-dimensional, which would not promote bf16 to float32."""
        return (1,) if self.channels is None else (self.channels, *[1] * (self.ndim - 1))

    def extra_repr(self) -> str:
        return f"bits={self._bits}, granularity={self.granularity}"


def _written(buffer: Tensor) -> tuple[int, int]:
    """Return which tensor this is and how often it was written to, without reading the device."""
    return id(buffer), buffer._version


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse an option that is not among `allowed`."""
    if value not in allowed:
        raise ValueError(
            f"{name} {value!r} is unknown; no quantizer was made. Use one of {', '.join(allowed)}."
        )
