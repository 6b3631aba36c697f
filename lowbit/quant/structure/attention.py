"""Quantized `nn.MultiheadAttention`, which reads its projections' weights instead of calling layers.

Its packed input projection becomes a layer, `in_proj`, without a parameter of its own, so that it has
quantizers, a name for rules and a row in `explain` like any other; `in_proj_weight` keeps its name.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.quant.layers import Converted, QuantizedLinear, is_quantizing, quantized_class
from lowbit.quant.policies.rule import FULL, Rule


class InputProjection(QuantizedLinear):
    """The input projection of an `nn.MultiheadAttention`, whose parameters stay where they are."""

    base = nn.Linear

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        nn.Module.__init__(self)  # without parameters
        self.out_features, self.in_features = attention.in_proj_weight.shape
        self._attention = (attention,)  # a tuple hides it from the network's tree

    @property
    def weight(self) -> Tensor:
        """Weights of queries, keys and values, (3 E, E)."""
        return self._attention[0].in_proj_weight

    @property
    def bias(self) -> Tensor | None:
        """Biases of the same, (3 E,)."""
        return self._attention[0].in_proj_bias

    def split(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return projected queries, keys and values; one product if all three are one tensor."""
        if query is key and key is value:
            return self(query).chunk(3, dim=-1)
        weights = self.quantized_weight().chunk(3)
        biases = (None,) * 3 if self.bias is None else self.bias.chunk(3)
        return tuple(
            self.quantized_output(F.linear(self.quantized_input(x), w, b))
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )

    def __reduce_ex__(self, protocol):
        return object.__reduce_ex__(self, protocol)


class QuantizedAttention(Converted):
    """Mixin of an `nn.MultiheadAttention` that calls its input and output projections.

    Queries, keys and values that are different tensors share the scale of `in_proj`'s input, as they
    share that of its weight. Softmax and the two products between projections stay in full precision.
    """

    in_proj: InputProjection

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, with the arguments and results of `nn.MultiheadAttention`."""
        if not is_quantizing(self):  # torch's own computation, to the last bit
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        if is_causal and attn_mask is None:
            raise ValueError(
                "is_causal is only a hint about attn_mask, which is None; nothing was computed. "
                "Pass the causal mask as attn_mask."
            )
        batched = query.dim() == 3
        packed = self.in_proj.split(query, key, value)
        if not batched:
            packed = tuple(x[None] for x in packed)
        elif not self.batch_first:
            packed = tuple(x.transpose(0, 1) for x in packed)
        heads = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in packed)
        q, k, v = heads  # (N, H, L, E/H), (N, H, S, E/H) twice
        mask = _additive_mask(attn_mask, key_padding_mask, q, k)
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (N, H, L, S)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = F.dropout(weights, self.dropout, self.training)
            out = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights[0]
        else:
            dropout = self.dropout if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        out = self.out_proj(out.transpose(1, 2).flatten(2))  # (N, L, E)
        if not batched:
            return out[0], weights
        return (out if self.batch_first else out.transpose(0, 1)), weights


def _additive_mask(
    attention: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor
) -> Tensor | None:
    """Return the sum of (L, S) or (N H, L, S) and (N, S) masks, broadcastable to (N, H, L, S)."""
    if attention is not None:
        attention = _as_addend(attention, q)
        if attention.dim() == 3:
            attention = attention.view(-1, q.shape[1], q.shape[2], k.shape[2])
    if padding is not None:
        padding = _as_addend(padding, q).view(-1, 1, 1, k.shape[2])
    if attention is None or padding is None:
        return attention if padding is None else padding
    return attention + padding


def _as_addend(mask: Tensor, q: Tensor) -> Tensor:
    """Return minus infinity where a boolean mask is True; a floating-point mask as it is."""
    if mask.dtype != torch.bool:
        return mask.to(q.dtype)
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, -math.inf)


def attentions_to_quantize(
    sites: list[tuple[str, nn.Module, Rule]],
) -> set[nn.MultiheadAttention]:
    """Return the attentions with a projection to quantize.

    Args:
        sites: name, layer and rule of every layer; `in_proj` is given as its attention.

    Raises:
        ValueError: one of them cannot be quantized; the message names it.
    """
    rules = {name: rule for name, _, rule in sites}
    found, refused = set(), {}
    for name, module, rule in sites:
        if isinstance(module, nn.MultiheadAttention):
            out = rules.get(f"{name.removesuffix('in_proj')}out_proj", rule)
            if {rule, out} != {Rule(FULL, FULL)}:
                found.add(module)
                refused |= {name: why} if (why := _refusal(module)) else {}
    if refused:
        name, why = next(iter(refused.items()))
        attention = name.rpartition(".")[0]
        raise ValueError(
            f"{len(refused)} nn.MultiheadAttention cannot be quantized: {attention} {why}; nothing was "
            f'quantized. Keep it in full precision by a rule of the policy: {{"{attention}.*": "fp"}}.'
        )
    return found


def _refusal(attention: nn.MultiheadAttention) -> str | None:
    """Return why this attention cannot be quantized, or None."""
    if type(attention).forward is not nn.MultiheadAttention.forward:
        return "has a forward of its own"
    if not attention._qkv_same_embed_dim:
        return "has keys or values of another width than its queries (kdim, vdim)"
    if attention.bias_k is not None or attention.add_zero_attn:
        return "adds tokens to its keys and values (add_bias_kv, add_zero_attn)"
    return None


def add_input_projection(attention: nn.MultiheadAttention) -> InputProjection:
    """Make `attention` call its projections, in place, and return the new layer `in_proj`."""
    attention.__class__ = quantized_class(QuantizedAttention, type(attention))
    attention.in_proj = InputProjection(attention)
    return attention.in_proj
