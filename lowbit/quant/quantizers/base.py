"""What every quantizer is, and the registry of their names."""

import importlib

from torch import Tensor, nn

from lowbit.common.suggest import did_you_mean
from lowbit.quant.precision import OFF

QUANTIZERS: dict[str, type["Quantizer"]] = {}
"""Quantizers by the name a policy uses. A class registers itself with `@register`; its constructor
takes what `Quantizer` takes and its own keyword options, which a policy's YAML may set."""


def find(name: str) -> type["Quantizer"]:
    """Return the quantizer called `name`, or at `module:Class`, which is imported.

    Raises:
        ValueError: there is none.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"quantizer {name!r} cannot be imported ({error}); no policy was made. Put its file "
                "on PYTHONPATH and write module:Class."
            ) from error
        if not (isinstance(found, type) and issubclass(found, Quantizer)):
            raise ValueError(
                f"{name!r} is no quantizer; no policy was made. It must be a subclass of "
                "lowbit.quant.Quantizer."
            )
        return found
    if name not in QUANTIZERS:
        raise ValueError(
            f"there is no quantizer {name!r}; no policy was made."
            f"{did_you_mean(name, QUANTIZERS)} Known: {', '.join(sorted(QUANTIZERS))}; your own as module:Class."
        )
    return QUANTIZERS[name]


def register(cls: type["Quantizer"]) -> type["Quantizer"]:
    """Make `cls` available to policies under its class name."""
    QUANTIZERS[cls.__name__] = cls
    return cls


class Quantizer(nn.Module):
    """Base of all quantizers; itself the identity at 32 bits.

    Attributes:
        bits: current bit-width; 32 turns the quantizer off exactly.
        signed: whether codes run below zero.
        granularity: "tensor" (one scale) or "channel" (one for each index of dimension 0).
        scale: the positive scale, shape (1,) or broadcastable over dimension 0.
        observing: while True, forward passes record their input and do not quantize.

    Args:
        bits: bit-width to start at.
        channels: None for one scale a tensor, else the size of dimension 0.
        ndim: dimensions of the tensors to come, which shapes a stored scale per channel.
        role: "weight" or "activation" (whose dimension 0 counts samples).
    """

    rescales = False  # whether the output's range is fixed, so that the input's scale is lost

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
        """Whether the scale is known, or needs no knowing, before the next tensor comes."""
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
    def gain(self) -> Tensor | float:
        """About x / forward(x): what restores the scale of the input."""
        return 1.0

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
        if not self.ready:
            self.follow_buffers()  # an average of models is given tensors, but no attributes
            if not self.ready:
                self._initialize_late(x.detach())
        return self._quantize(x)

    def _quantize(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def codes(self, x: Tensor) -> Tensor:
        """Return the integer code of each element, in the narrowest type that holds all of them."""
        raise NotImplementedError

    def grid(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return (step, offset) of the grid for `x`: forward(x) is codes(x) * step + offset."""
        return self.scale, 0.0

    def follow_buffers(self) -> None:
        """Set what is kept as attributes (initialized, signed) from the buffers that say the same."""

    def reset(self) -> None:
        """Forget what was observed."""

    def observe(self, x: Tensor) -> None:
        """Take one more batch into the statistics the scale is set from."""

    def finish(self) -> None:
        """Set the scale from what was observed."""

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


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse an option that is not among `allowed`."""
    if value not in allowed:
        raise ValueError(
            f"{name} {value!r} is unknown; no quantizer was made. Use one of {', '.join(allowed)}."
        )
