"""Integer codes of latent weights from one step to the next, and how many of them changed.

A transition is a change of code w_d (TR Eq. 5), never of the quantized weight w_q, which also changes
with its scale.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.quant.kernels import c_kernels, torch_compiled
from lowbit.quant.precision import OFF
from lowbit.quant.quantizers.base import LinearCodes
from lowbit.quant.quantizers.learned import SMALLEST_SCALE

CHUNK = 1024  # every layer starts at a multiple of it, so that one sum covers all layers' chunks
CPU_BATCH = 256 * CHUNK  # elements whose operands fit in the cache


@dataclass(frozen=True)
class Piece:
    """Elements start..stop, in memory order, of the weight of layer number `layer`."""

    layer: int
    start: int
    stop: int

    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the piece of this layer's tensor, a view."""
        return flat(tensors[self.layer])[self.start : self.stop]


@dataclass(frozen=True)
class _Batch:
    """Pieces whose codes are read together into `start` to `stop` of the buffer."""

    pieces: list[Piece]
    start: int
    stop: int
    bounds: tuple[int, int] | None  # of round(clip(w / s)); None: ask the quantizer


class Codes:
    """Codes of layers' weights in one flat integer buffer.

    Two buffers alternate: reading fills one, which is then compared with the other. Codes that a quantizer
    declares linear (`Quantizer.linear_codes`) are read in batches, or by a fused kernel; others come
    from the quantizer's `codes`, one layer at a time.

    Args:
        layers: quantized layers by name.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        if not layers:
            raise ValueError(
                "there is no quantized layer to count codes of. Call lowbit.quant.quantize(model, "
                "...) with a policy that quantizes weights."
            )
        self.names, self.layers = list(layers), list(layers.values())
        for name, layer in layers.items():
            if not _is_dense(layer.weight):
                raise ValueError(
                    f"the weight of {name} is a view with gaps; its codes cannot be counted. Give the "
                    "layer a contiguous weight: layer.weight.data = layer.weight.data.contiguous()."
                )
        device = self.layers[0].weight.device
        self.numel = torch.tensor(
            [layer.weight.numel() for layer in self.layers], dtype=torch.float64, device=device
        )
        self.changed = torch.zeros_like(self.numel)  # changed codes per layer
        self._jumps: Tensor | None = torch.zeros_like(self.numel)
        self._one = torch.ones(1, device=device)
        self._kind: list[tuple[int, tuple[int, ...]]] | None = None

    @property
    def stale(self) -> bool:
        """Whether codes are missing, or have other bits or another memory layout than the weights."""
        return self._kind != [(layer.w_quant.bits, layer.weight.stride()) for layer in self.layers]

    def start(self) -> None:
        """Read the codes before the first step, or after the bits changed; counts no transitions.

        Raises:
            ValueError: a layer is at full precision, where a weight has no code.
        """
        for name, layer in zip(self.names, self.layers, strict=True):
            if layer.w_quant.bits >= OFF:
                raise ValueError(
                    f"layer {name} is at full precision, where weights have no codes; no step was "
                    "taken. Call lowbit.quant.set_precision(model, ...) before training."
                )
        self._allocate()
        self.advance()
        self.changed = torch.zeros_like(self.numel)
        self._jumps = torch.zeros_like(self.numel)

    def _allocate(self) -> None:
        self._kind = [(layer.w_quant.bits, layer.weight.stride()) for layer in self.layers]
        self._linear = [_linear_codes(layer) for layer in self.layers]
        self._bounds = [form and (form.low, form.high) for form in self._linear]
        self._spacing = self.numel.new_tensor(
            [layer.w_quant.code_distance for layer in self.layers]
        )
        sizes = [-(-layer.weight.numel() // CHUNK) for layer in self.layers]  # in chunks
        ends = list(accumulate(sizes))
        self._offsets = [CHUNK * (end - size) for end, size in zip(ends, sizes, strict=True)]
        owners = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        device = self.numel.device
        self._owners = owners.to(device)
        dtype = reduce(torch.promote_types, map(_code_dtype, self.layers))
        self._old, self._new = (
            torch.zeros(CHUNK * ends[-1], dtype=dtype, device=device) for _ in range(2)
        )
        self._batches = self._plan(CPU_BATCH if device.type == "cpu" else CHUNK * ends[-1])

    def _plan(self, largest: int) -> list[_Batch]:
        """Gather layers with the same bounds into batches of at most `largest` elements."""
        batches: list[_Batch] = []
        for index, (layer, offset) in enumerate(zip(self.layers, self._offsets, strict=True)):
            bounds, size = self._bounds[index], layer.weight.numel()
            length = size if bounds is None else largest
            for start in range(0, size, length):
                piece = Piece(index, start, min(start + length, size))
                stop = offset - (-piece.stop // CHUNK) * CHUNK
                last = batches[-1] if batches else None
                has_room = last is not None and stop - last.start <= largest
                if has_room and bounds is not None and last.bounds == bounds:
                    batches[-1] = _Batch([*last.pieces, piece], last.start, stop, bounds)
                else:
                    batches.append(_Batch([piece], offset + start, stop, bounds))
        return batches

    def kernels(self) -> ModuleType | None:
        """Return the module of kernels that step a layer and read its codes in one pass, if one applies."""
        if any(_linear_codes(layer) is None for layer in self.layers):
            return None
        if c_kernels.supports_steps(self._new):
            return c_kernels
        return torch_compiled if torch_compiled.fused_kernels(self.numel.device) else None

    @property
    def bounds(self) -> list[tuple[int, int] | None]:
        """Lowest and highest code of each layer; None if only the quantizer can compute its codes."""
        return self._bounds

    def inverses(self) -> list[Tensor]:
        """Return γ/s of each layer, (1,); 1 if only the quantizer can compute its codes."""
        forms = [form for form in self._linear if form is not None]
        if not forms:
            return [self._one for _ in self.layers]
        scales = [
            layer.w_quant.q_scale.detach()
            for layer, form in zip(self.layers, self._linear, strict=True)
            if form is not None
        ]
        found = torch._foreach_abs(scales)
        torch._foreach_clamp_min_(found, SMALLEST_SCALE)  # as LearnedScale.scale
        if any(form.ratio != 1 for form in forms):
            torch._foreach_mul_(found, [form.ratio for form in forms])
        torch._foreach_reciprocal_(found)
        torch._foreach_mul_(found, [float(form.gamma) for form in forms])
        inverses = iter(found)
        return [self._one if form is None else next(inverses) for form in self._linear]

    def buffers(self) -> list[tuple[Tensor, Tensor]]:
        """Return, for each layer, its last codes and the buffer for the next ones, flat."""
        return [
            (self._old[a : a + layer.weight.numel()], self._new[a : a + layer.weight.numel()])
            for a, layer in zip(self._offsets, self.layers, strict=True)
        ]

    @property
    def latest(self) -> Tensor:
        """The codes read last, of all layers in one buffer, whose gaps between layers are 0."""
        return self._old

    @property
    def previous(self) -> Tensor:
        """The codes read before those, likewise."""
        return self._new

    def pieces(self, buffer: Tensor) -> list[Tensor]:
        """Return each layer's part of a buffer that is laid out as the codes are, shaped like its weight."""
        return [
            buffer.as_strided(weight.shape, weight.stride(), buffer.storage_offset() + start)
            for weight, start in zip(
                (layer.weight for layer in self.layers), self._offsets, strict=True
            )
        ]

    def settle(self, changed: Tensor | list[Tensor | int]) -> None:
        """Make the newly written codes the last ones."""
        if isinstance(changed, list):
            changed = torch.stack([torch.as_tensor(count) for count in changed])
        self.changed, self._jumps = changed.to(self.numel), None
        self._old, self._new = self._new, self._old

    @torch.no_grad()
    def advance(self, move: Callable[[list[Piece]], None] | None = None) -> None:
        """Read all codes and compare them with the last ones, without waiting for the device.

        Args:
            move: called with each batch's pieces just before they are read, to change the weights
                while they are in the cache.
        """
        inverses, weights = self.inverses(), [layer.weight.detach() for layer in self.layers]
        size = max(batch.stop - batch.start for batch in self._batches)
        scratch = torch.empty(size, device=self._one.device)
        flags = torch.empty(size, dtype=torch.bool, device=self._one.device)
        differing = []
        for batch in self._batches:
            if move is not None:
                move(batch.pieces)
            q = scratch[: batch.stop - batch.start].zero_()
            self._read(batch, q, weights, inverses)
            old, new = (side[batch.start : batch.stop] for side in (self._old, self._new))
            new.copy_(q)
            torch.ne(new, old, out=flags[: len(q)])
            differing.append(_raised(flags[: len(q)]))
        self.settle(self._by_layer(torch.cat(differing)))

    @property
    def jumps(self) -> Tensor:
        """Sum of |difference| over the codes of each layer: the other buffer holds the previous ones."""
        if self._jumps is None:
            distances = [
                (self._old[b.start : b.stop].float() - self._new[b.start : b.stop]).abs_()
                for b in self._batches
            ]
            sums = [distance.view(-1, CHUNK).sum(1) for distance in distances]
            self._jumps = self._by_layer(torch.cat(sums))
        return self._jumps

    def _by_layer(self, of_chunks: Tensor) -> Tensor:
        zeros = torch.zeros_like(self.numel)
        return zeros.index_add(0, self._owners, of_chunks.double())

    def _read(
        self, batch: _Batch, q: Tensor, weights: list[Tensor], inverses: list[Tensor]
    ) -> None:
        """Write a batch's codes into `q`, which starts as zeros."""
        if batch.bounds is None:
            (piece,) = batch.pieces
            weight = weights[piece.layer]
            codes = self.layers[piece.layer].w_quant.codes(weight)
            q[: piece.stop].as_strided(weight.shape, weight.stride()).copy_(codes)
            return
        for piece in batch.pieces:  # foreach has no `out`, and copying would take another pass
            at = self._offsets[piece.layer] + piece.start - batch.start
            place = q[at : at + piece.stop - piece.start]
            torch.mul(piece.of(weights), inverses[piece.layer], out=place)
        q.clamp_(*batch.bounds).round_()

    def distances(self) -> Tensor:
        """Return how far one transition moves a quantized weight, one number per layer.

        It is the grid's step (its mean if there is one per channel). Between the codes -1 and +1 of a
        binary weight are two code units, counted as one transition of half that distance (Eq. 8).
        """
        steps = []
        for layer in self.layers:
            step, _ = layer.w_quant.grid(layer.weight.detach())
            steps.append(torch.as_tensor(step, device=self._one.device).detach().double().mean())
        return torch.stack(steps)

    def effective_steps(self, distances: Tensor) -> Tensor:
        """Return the mean change |w_q^t - w_q^(t-1)| of each layer's quantized weights (Eqs. 6-8)."""
        return self.jumps / self._spacing / self.numel * distances

    def state_dict(self) -> dict[str, Any]:
        """Return the last codes, each shaped like its weight, and the counts."""
        return {"codes": self._shaped(), "changed": self.changed, "jumps": self.jumps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the codes; without them the first count after a resume would be wrong."""
        self._allocate()
        for ours, theirs in zip(self._shaped(), state["codes"], strict=True):
            ours.copy_(theirs)
        self.changed = state["changed"].to(self.numel.device, copy=True)
        self._jumps = state["jumps"].to(self.numel.device, copy=True)

    def _shaped(self) -> list[Tensor]:
        return self.pieces(self._old)


def flat(t: Tensor) -> Tensor:
    """View a dense tensor in memory order, detached."""
    return t.detach().as_strided((t.numel(),), (1,))


def _is_dense(t: Tensor) -> bool:
    return t.is_contiguous() or (
        t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last)
    )


def _code_dtype(layer: nn.Module) -> torch.dtype:
    """Return int8 if the codes and the signs of their differences fit, as for 4-bit codes."""
    return layer.w_quant.codes(layer.weight.detach()).dtype


def _raised(flags: Tensor) -> Tensor:
    """Return how many booleans are true in each chunk.

    Bytes are 0 or 1. As int64, eight are added at once, and no byte overflows in a sum of 128; sums of
    bytes themselves are not vectorized on a CPU.
    """
    lanes = flags.view(torch.int64).view(-1, CHUNK // 8).sum(1)
    return lanes.view(torch.uint8).view(-1, 8).sum(1)


def _linear_codes(layer: nn.Module) -> LinearCodes | None:
    """Return the linear form of a layer's codes if they can be computed here, in float32, else None."""
    return layer.w_quant.linear_codes() if layer.weight.dtype == torch.float32 else None
