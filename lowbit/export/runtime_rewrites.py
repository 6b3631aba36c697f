"""Rewrites of an integer graph that change no value, and with which runtimes compute what it says."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

_TINY = 1e-30
_FINE_STEP = 2.0**-23  # ONNX Runtime's tolerance when it compares a Clip's ends with a quantizer's
_INT16 = 2**15 - 1


@dataclass(frozen=True)
class _Convolution:
    """A convolution with integer weights; `weight` dequantizes them."""

    node: ir.Node
    weight: ir.Node

    @property
    def scale(self) -> np.ndarray:
        """Of each output channel, float64 (C,)."""
        return _numbers(self.weight.inputs[1]).astype(np.float64)

    @property
    def bias(self) -> np.ndarray:
        """Of each output channel, float64 (C,); zeros if it has none."""
        if len(self.node.inputs) < 3 or self.node.inputs[2] is None:
            return np.zeros_like(self.scale)
        return _numbers(self.node.inputs[2]).astype(np.float64)


def adapt_to_runtimes(graph: ir.Graph) -> None:
    """Rewrite a graph of quantizers, dequantizers and products, in place; its outputs stay the same."""
    for convolution in list(_convolutions(graph)):
        _mark_scale(graph, convolution)
        _keep_rounding(graph, convolution)
        _grow_codes(graph, convolution)
    for node in [node for node in graph if node.op_type == "MaxPool"]:
        _pool_codes(graph, node)
    for node in [node for node in graph if node.op_type == "Concat"]:
        _keep_joined(graph, node)


def _mark_scale(graph: ir.Graph, convolution: _Convolution) -> None:
    """Give a bias to a convolution without one whose output is quantized and read otherwise too.

    Hack: OpenVINO up to 2026.4 scales what such a quantizer reads twice, so that all its codes are
    zero, unless an addition of other than zeros stands between. Remove this when it does not.
    """
    output = convolution.node.outputs[0]
    several = len(_users(output)) + output.is_graph_output() > 1
    if several and not convolution.bias.any():
        _set_bias(graph, convolution, np.full_like(convolution.scale, _TINY))


def _keep_rounding(graph: ir.Graph, convolution: _Convolution) -> None:
    """Let what a convolution gives be rounded before it is added, as the quantizer between says.

    Hack: OpenVINO up to 2026.4 computes convolution, quantizer, addition and quantizer in one kernel,
    where a quantizer that comes first clips but does not round. A Clip before it comes first instead.
    One is taken into the quantizer, so two are needed; neither moves a code. ONNX Runtime would not
    recognize an integer convolution behind them, but leaves out a Clip whose ends are less than a fixed
    difference from the quantizer's. Hence the powers of two, which make all values that small.
    `findings/openvino_adds_before_rounding.sh` fails when this is no longer needed.
    """
    quantize = _added_quantizer(convolution.node)
    if quantize is None:
        return
    step = _numbers(quantize.inputs[1])
    factor = 2.0 ** np.floor(np.log2(_FINE_STEP / step))
    if factor < 1:
        _set_scale(graph, convolution, convolution.scale * factor)
        if convolution.bias.any():
            _set_bias(graph, convolution, convolution.bias * factor)
        step = (step * factor).astype(np.float32)
        quantize.replace_input_with(1, _constant(graph, f"{quantize.name}.step", step))
    _clip_before(graph, quantize, step, count=2)


def _keep_joined(graph: ir.Graph, concat: ir.Node) -> None:
    """Let what several convolutions give be joined before it is quantized.

    Hack: OpenVINO up to 2026.4 gives other values where int8 convolutions with leaky ReLUs meet in a
    Concat and are then quantized (a correlation of 0.8 with the network); its reason is not known. A Clip
    between prevents it and moves no code. Remove this when its test passes without.
    """
    for quantize in _users(concat.outputs[0]):
        if quantize.op_type == "QuantizeLinear":
            _clip_before(graph, quantize, _numbers(quantize.inputs[1]), count=1)


def _clip_before(graph: ir.Graph, quantize: ir.Node, step: np.ndarray, *, count: int) -> None:
    """Put Clips before a quantizer that end within half a step of its range, so that no code moves."""
    zero = _numbers(quantize.inputs[2])
    limits = np.iinfo(zero.dtype)
    low, high = limits.min - int(zero) + 0.25, limits.max - int(zero) - 0.25
    ends = [
        _constant(graph, f"{quantize.name}.{name}", np.float32(end * step))
        for name, end in (("least", low), ("most", high))
    ]
    value = quantize.inputs[0]
    for index in range(1, count + 1):
        clip = ir.node("Clip", [value, *ends], name=f"{quantize.name}.clip{index}")
        clip.outputs[0].name = f"{clip.name}.value"
        graph.insert_before(quantize, clip)
        value = clip.outputs[0]
    quantize.replace_input_with(0, value)


def _grow_codes(graph: ir.Graph, convolution: _Convolution) -> None:
    """Multiply codes of few bits, and divide their scale, so that kernels round little else.

    ONNX Runtime rounds a bias to whole products of the scales of input and weight, which are coarse
    where both have few bits (`findings/onnxruntime_rounds_float_biases.sh`). For each channel the factor is
    taken with which that errs least.

    On x86 CPUs without VNNI, OpenVINO halves the codes of a convolution whose input is signed, and rounds
    them (`findings/openvino_halves_weights_of_signed_inputs.sh`). There the factor is even.
    """
    source, codes = convolution.node.inputs[0].producer(), convolution.weight.inputs[0]
    if source is None or source.op_type != "DequantizeLinear" or len(_users(codes)) > 1:
        return
    values = _numbers(codes)
    if values.dtype != np.int8:  # packed
        return
    # Some kernels add two products in 16 bits; codes must not grow until these overflow.
    most = min(127, _INT16 // (2 * _largest_code(source)))
    largest = np.abs(values.astype(int)).reshape(len(values), -1).max(1).clip(1)  # (C,)
    step = np.abs(convolution.scale) * float(_numbers(source.inputs[1]))  # (C,)
    factors = np.arange(1, 128)[:, None]  # (K, 1)
    whole = factors * convolution.bias / step  # (K, C)
    error = np.abs(whole - whole.round()) / factors
    error[1:][factors[1:] * largest > most] = np.inf
    if _numbers(source.inputs[2]).dtype == np.int8:
        error[np.ix_(factors[:, 0] % 2 == 1, 2 * largest <= most)] = np.inf
    best = factors[error.argmin(0), 0]  # (C,)
    if (best > 1).any():
        finer = values * best.astype(np.int8).reshape(-1, *[1] * (values.ndim - 1))
        codes.const_value = ir.tensor(finer)
        _set_scale(graph, convolution, convolution.scale / best)


def _pool_codes(graph: ir.Graph, pool: ir.Node) -> None:
    """Quantize what a pooling gives on the grid of what it reads, which it is on already.

    ONNX Runtime pools integers only where a quantizer of that grid follows; it would pool a quarter of
    a network's largest tensor in floating point, between two changes of layout.
    """
    source = pool.inputs[0].producer()
    output = pool.outputs[0]
    if source is None or source.op_type != "DequantizeLinear" or output.is_graph_output():
        return
    if not any(node.op_type == "QuantizeLinear" for node in _users(output)):
        return  # DequantizeLinear is moved behind the pooling there
    name = pool.name or output.name
    quantize = ir.node("QuantizeLinear", [output, *source.inputs[1:]], name=f"{name}.quantize")
    codes = quantize.outputs[0]
    dequantize = ir.node("DequantizeLinear", [codes, *source.inputs[1:]], name=f"{name}.dequantize")
    for node in (quantize, dequantize):
        node.outputs[0].name = f"{node.name}.value"
    output.replace_all_uses_with(dequantize.outputs[0])
    quantize.replace_input_with(0, output)
    graph.insert_after(pool, [quantize, dequantize])


def _largest_code(dequantize: ir.Node) -> int:
    """Return the largest code, as an unsigned byte, that a dequantizer may read."""
    clip = dequantize.inputs[0].producer()
    if clip is not None and clip.op_type == "Clip" and _numbers(clip.inputs[2]).dtype == np.uint8:
        return max(1, int(_numbers(clip.inputs[2])))
    return 255


def _convolutions(graph: ir.Graph) -> Iterator[_Convolution]:
    """Yield convolutions whose weight nothing else reads."""
    for node in graph:
        if node.op_type == "Conv":
            weight = node.inputs[1].producer()
            if weight is not None and weight.op_type == "DequantizeLinear":
                yield _Convolution(node, weight)


def _added_quantizer(conv: ir.Node) -> ir.Node | None:
    """Return the quantizer between a convolution and an addition, if nothing else reads between them."""
    node, found = conv, None
    while len(users := _users(node.outputs[0])) == 1 and not node.outputs[0].is_graph_output():
        node = users[0]
        if node.op_type == "QuantizeLinear" and found is None:
            found = node
        elif node.op_type == "Add":
            return found
        elif node.op_type not in ("Relu", "Clip", "DequantizeLinear"):
            return None
    return None


def _set_scale(graph: ir.Graph, convolution: _Convolution, scale: np.ndarray) -> None:
    name = f"{convolution.weight.name}.scale"
    convolution.weight.replace_input_with(1, _constant(graph, name, scale.astype(np.float32)))


def _set_bias(graph: ir.Graph, convolution: _Convolution, bias: np.ndarray) -> None:
    node = convolution.node
    node.resize_inputs(3)
    node.replace_input_with(2, _constant(graph, f"{node.name}.bias", bias.astype(np.float32)))


def _constant(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    while name in graph.initializers:
        name += "'"
    tensor = ir.tensor(np.asarray(values))
    value = ir.Value(
        name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def _numbers(value: ir.Value) -> np.ndarray:
    return value.const_value.numpy()


def _users(value: ir.Value) -> list[ir.Node]:
    return list(dict.fromkeys(use.node for use in value.uses()))
