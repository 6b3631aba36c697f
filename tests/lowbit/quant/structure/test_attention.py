"""Quantized `nn.MultiheadAttention` against torch's own with quantized values put in."""

import copy

import pytest
import torch
from torch import nn

from lowbit.quant import Precision, calibrate, explain, quantize, quantized_layers, set_precision
from lowbit.quant.adaptive import make_adaptive
from lowbit.quant.adaptive.nested import load_nested, nested_state

E, HEADS, N, L, S = 8, 2, 3, 4, 5


class Attention(nn.Module):
    """An attention that takes keywords as they come."""

    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(E, HEADS, **options)
        nn.init.normal_(self.attention.in_proj_bias, 0, 0.3)

    def forward(self, *args, **kwargs):
        return self.attention(*args, **kwargs)


class Itself(Attention):
    """Self-attention over images' rows."""

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def observed(module, *args, **kwargs):
    """Return a quantized copy that passes all its quantizers but rounds nothing."""
    module = quantize(copy.deepcopy(module), "lsq")
    for layer in quantized_layers(module).values():
        layer.a_quant.observing = True
    return module(*args, **kwargs)


def tokens(length, *, batch_first=True):
    x = torch.randn(N, length, E, dtype=torch.float64)
    return x if batch_first else x.transpose(0, 1)


_CAUSAL = torch.ones(L, S).triu(1).bool()
_PADDING = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]]).bool()
_PER_HEAD = torch.randn(N * HEADS, L, S, generator=torch.Generator().manual_seed(3)).double()


def _float(mask):
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape).double().masked_fill(mask, -torch.inf)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights, average", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("mask", [None, _CAUSAL, _PER_HEAD])
@pytest.mark.parametrize("padding", [None, _PADDING, _PADDING.double() * -2])
def test_arguments_mean_what_they_mean_in_torch(batch_first, need_weights, average, mask, padding):
    if mask is not None and padding is not None and mask.dtype != padding.dtype:
        mask, padding = _float(mask), _float(padding)  # torch wants one type
    module = Attention(batch_first=batch_first).double().eval()
    query, memory = tokens(L, batch_first=batch_first), tokens(S, batch_first=batch_first)
    options = {"need_weights": need_weights, "average_attn_weights": average}
    options |= {"attn_mask": mask, "key_padding_mask": padding}
    for given in ((query, memory, memory), (query, memory, 2 * memory)):
        expected = module(*given, **options)
        torch.testing.assert_close(observed(module, *given, **options), expected)


def test_one_sequence_without_a_batch():
    module = Attention(batch_first=True).double().eval()
    x = torch.randn(L, E).double()
    mask = torch.ones(L, L).triu(1).bool()
    torch.testing.assert_close(
        observed(module, x, x, x, attn_mask=mask), module(x, x, x, attn_mask=mask)
    )


def test_low_bits_are_torch_s_formula_on_quantized_values():
    net = quantize(Itself(batch_first=True).double().eval(), "lsq")
    x = tokens(L)
    calibrate(net, [x])
    set_precision(net, "3w3a")
    inner, outer = net.attention.in_proj, net.attention.out_proj
    q, k, v = nn.functional.linear(
        inner.a_quant(x), inner.w_quant(inner.weight), net.attention.in_proj_bias
    ).chunk(3, -1)
    heads = (t.view(N, L, HEADS, E // HEADS).transpose(1, 2) for t in (q, k, v))
    q, k, v = heads
    mixed = ((q @ k.mT / (E // HEADS) ** 0.5).softmax(-1) @ v).transpose(1, 2).reshape(N, L, E)
    expected = outer.a_quant(mixed) @ outer.w_quant(outer.weight).T + outer.bias
    torch.testing.assert_close(net(x), expected)
    assert inner.a_quant(x).unique().numel() <= 8


def test_dropout_drops_attention_weights_in_training_only():
    net = quantize(Itself(batch_first=True, dropout=0.5), "lsq")
    x = torch.randn(N, L, E)
    calibrate(net, [x])
    set_precision(net, "8w8a")
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_explain_lists_the_input_projection_before_and_after():
    net = Itself(batch_first=True)
    rows = {r.name: r for r in explain(net)}
    assert set(rows) == {"attention.in_proj", "attention.out_proj"}
    assert rows["attention.in_proj"].why == "full precision by rule"
    rows = {r.name: r for r in explain(quantize(net, "lsq", Precision(3, 5)))}
    assert set(rows) == {"attention.in_proj", "attention.out_proj"}
    assert (rows["attention.in_proj"].weight_bits, rows["attention.in_proj"].activation_bits) == (
        3,
        5,
    )


@pytest.mark.parametrize("kept, quantized", [("in_proj", "out_proj"), ("out_proj", "in_proj")])
def test_rules_reach_each_projection(kept, quantized):
    net = quantize(Itself(batch_first=True), {"base": "lsq", "rules": {f"*.{kept}": "fp"}})
    assert list(quantized_layers(net)) == [f"attention.{quantized}"]
    x = torch.randn(N, L, E)
    calibrate(net, [x])
    full = net(x)
    set_precision(net, "2w2a")
    assert not torch.equal(net(x), full)
    rows = {r.name: r.why for r in explain(net)}
    assert rows[f"attention.{kept}"] == "full precision by rule"


@pytest.mark.parametrize(
    "options, why",
    [
        ({"kdim": 4}, "kdim"),
        ({"add_bias_kv": True}, "add_bias_kv"),
        ({"add_zero_attn": True}, "add_zero_attn"),
    ],
)
def test_what_cannot_be_quantized_is_refused_by_name_and_left_alone(options, why):
    net = nn.ModuleDict(
        {"stem": nn.Linear(E, E), "cross": nn.MultiheadAttention(E, HEADS, **options)}
    )
    with pytest.raises(ValueError, match=rf"cross .*{why}.*nothing was quantized.*cross\.\*"):
        quantize(net, "lsq")
    assert not quantized_layers(net) and type(net["cross"]) is nn.MultiheadAttention
    assert set(quantized_layers(quantize(net, {"base": "lsq", "rules": {"cross.*": "fp"}}))) == {
        "stem"
    }


def test_an_attention_with_a_forward_of_its_own_is_refused():
    class Twice(nn.MultiheadAttention):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    with pytest.raises(ValueError, match=r"own .*has a forward of its own"):
        quantize(nn.ModuleDict({"own": Twice(E, HEADS)}), "lsq")


def test_a_causal_hint_without_its_mask_is_refused():
    net = quantize(Attention(batch_first=True), "lsq", Precision(4, 4)).train()
    x = torch.randn(N, L, E)
    with pytest.raises(ValueError, match="Pass the causal mask as attn_mask"):
        net(x, x, x, is_causal=True)


def test_an_adaptive_attention_is_stored_as_codes_and_comes_back():
    net = quantize(Itself(batch_first=True).eval(), "coquant")
    x = torch.randn(N, L, E)
    calibrate(net, [x])
    make_adaptive(net, [8, 4])
    expected = {}
    for bits in (8, 4):
        set_precision(net, Precision(bits, bits))
        expected[bits] = net(x)
    stored = nested_state(net, "coquant", [8, 4])
    assert stored["state"]["attention.in_proj_weight"].dtype == torch.uint8
    assert not any("in_proj.weight" in name for name in stored["state"])
    loaded = load_nested(Itself(batch_first=True), stored)
    for bits in (8, 4):
        set_precision(loaded, Precision(bits, bits))
        torch.testing.assert_close(loaded(x), expected[bits])
