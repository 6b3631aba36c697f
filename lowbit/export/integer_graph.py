"""Put integer nodes where a traced network has marks, and fold normalizations into weights' scales."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import nn

from lowbit.export.marks import ACTIVATION, DOMAIN, NAME, WEIGHT
from lowbit.export.runtime import CODES
from lowbit.export.runtime_rewrites import adapt_to_runtimes
from lowbit.quant.integer.integer_grid import (
    ActivationGrid,
    NotAnIntegerGridError,
    WeightCodes,
    activation_grid,
    weight_codes,
)
from lowbit.quant.layers import WeightQuantized

_PRODUCTS = ("Conv", "Gemm", "MatMul")
PACKED_BITS = 4  # the narrowest integers that ONNX's operator set 21 has


Grids = Mapping[str, WeightCodes | ActivationGrid]
"""By the names that marks have: of layers, the codes of their weights; of quantizers, their grids."""


def read_grids(network: nn.Module, names: Iterable[str]) -> Grids:
    """Return the integers of a network's layers and quantizers at its precision.

    Raises:
        NotAnIntegerGridError: some have none; the message names each, and why.
    """
    modules = dict(network.named_modules())
    grids: dict[str, WeightCodes | ActivationGrid] = {}
    refused: dict[str, str] = {}
    for name in dict.fromkeys(names):
        module = modules[name]
        read = weight_codes if isinstance(module, WeightQuantized) else activation_grid
        try:
            grids[name] = read(module)
        except NotAnIntegerGridError as error:
            refused[name] = str(error)
    if refused:
        lines = "".join(f"\n  {name}: {why}" for name, why in refused.items())
        raise NotAnIntegerGridError(f"{len(refused)} quantizers have no integer form:{lines}")
    return grids


def put_integers(model: ir.Model, grids: Grids, *, pack: bool = False) -> list[str]:
    """Replace the marks of `lowbit.export.marks` in a graph, in place.

    A weight becomes its int8 codes, dequantized by a scale for each output channel; the batch
    normalization behind a convolution goes into that scale, negative factors too, and into a float bias.
    An activation is quantized, clipped as integers to the codes of its bits, and dequantized.

    Args:
        model: the graph, as torch exports it.
        grids: of every mark.
        pack: store codes of at most four bits in four.

    Returns:
        names of the layers with integer weights, in the order of computation, repeated if called so.
    """
    writer = _Writer(model.graph, pack=pack)
    for node in [node for node in model.graph if node.domain == DOMAIN]:
        if node.op_type == WEIGHT:
            writer.weight(node, grids[_name(node)])
        elif node.op_type == ACTIVATION:
            writer.activation(node, grids[_name(node)])
    adapt_to_runtimes(model.graph)
    # What is left over: statistics of normalizations, and biases from before they were adapted.
    RemoveUnusedNodesPass()(model)
    model.opset_imports.pop(DOMAIN, None)
    model.graph.sort()
    return writer.layers


def _name(node: ir.Node) -> str:
    return node.attributes[NAME].as_string()


class _Writer:
    """Writes integer nodes into one graph."""

    def __init__(self, graph: ir.Graph, *, pack: bool) -> None:
        self.graph, self.pack = graph, pack
        self.layers: list[str] = []
        self._names: dict[str, int] = {}

    def weight(self, mark: ir.Node, found: WeightCodes) -> None:
        layer, scale, codes = _name(mark), found.scale.numpy(), found.codes.numpy()
        axis, value, source = 0, mark.outputs[0], mark
        products = _users(value)
        if codes.ndim == 2 and [node.op_type for node in products] == ["Transpose"]:
            axis, codes, source = 1, codes.T, products[0]
            value = source.outputs[0]
            products = _users(value)
        if [node.op_type for node in products] == ["Conv"]:
            scale = self._fold(products[0], layer, scale)
        for node in products:
            if node.op_type in _PRODUCTS:
                node.name = self._unique(layer)
                self.layers.append(layer)
        small = self.pack and found.bits <= PACKED_BITS
        tensor = ir.tensor(np.ascontiguousarray(codes))
        if small:
            tensor = ir.PackedTensor(_nibbles(codes), ir.DataType.INT4, shape=ir.Shape(codes.shape))
        stored = layer + CODES
        if stored not in self.graph.initializers:
            self._constant(stored, tensor)
        name = self._unique(f"{layer}.weight")
        dequantized = self._insert(
            "DequantizeLinear",
            [
                self.graph.initializers[stored],
                self._constant(f"{name}.scale", _float(scale)),
            ],
            before=source,
            name=name,
            axis=axis,
        )
        self._replace(source, value, dequantized, also=mark)

    def activation(self, mark: ir.Node, grid: ActivationGrid) -> None:
        kind = np.int8 if grid.signed else np.uint8
        name = self._unique(_name(mark))
        before, after = (
            [
                self._constant(f"{name}.scale_{side}", ir.tensor(np.array(scale, np.float32))),
                self._constant(f"{name}.zero_{side}", ir.tensor(np.array(zero, kind))),
            ]
            for side, scale, zero in (
                ("in", grid.scale_in, grid.zero_in),
                ("out", grid.scale, grid.zero),
            )
        )
        value = self._insert(
            "QuantizeLinear", [mark.inputs[0], *before], before=mark, name=f"{name}.quantize"
        )
        limits = np.iinfo(kind)
        if (grid.low, grid.high) != (limits.min, limits.max):  # QuantizeLinear clips to these alone
            ends = (
                self._constant(f"{name}.{end}", ir.tensor(np.array(place, kind)))
                for end, place in (("low", grid.low), ("high", grid.high))
            )
            value = self._insert("Clip", [value, *ends], before=mark, name=f"{name}.clip")
        value = self._insert(
            "DequantizeLinear", [value, *after], before=mark, name=f"{name}.dequantize"
        )
        self._replace(mark, mark.outputs[0], value)

    def _fold(self, conv: ir.Node, layer: str, scale: np.ndarray) -> np.ndarray:
        """Fold the normalization behind a convolution into its bias; return the weight's new scale."""
        output = conv.outputs[0]
        users = _users(output)
        if [node.op_type for node in users] != ["BatchNormalization"] or output.is_graph_output():
            return scale
        norm = users[0]
        gamma, beta, mean, variance = (
            value.const_value.numpy().astype(np.float64) for value in norm.inputs[1:5]
        )
        epsilon = norm.attributes.get_float("epsilon", 1e-5)
        gain = gamma / np.sqrt(variance + epsilon)
        bias = 0.0
        if len(conv.inputs) > 2 and conv.inputs[2] is not None:
            bias = conv.inputs[2].const_value.numpy().astype(np.float64)
        folded = self._constant(
            self._unique(f"{layer}.folded_bias"), _float(beta + (bias - mean) * gain)
        )
        conv.resize_inputs(3)
        conv.replace_input_with(2, folded)
        self._replace(norm, norm.outputs[0], output)
        return scale * gain

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def _insert(
        self, op: str, inputs: list[ir.Value], *, before: ir.Node, name: str, **attributes: int
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes or None, name=name)
        node.outputs[0].name = f"{name}.value"
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def _replace(
        self, node: ir.Node, old: ir.Value, new: ir.Value, also: ir.Node | None = None
    ) -> None:
        """Use `new` for `old` everywhere, and remove the node that made it."""
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        if also is not None and also is not node:
            self.graph.remove(also, safe=True)

    def _unique(self, name: str) -> str:
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"


def _users(value: ir.Value) -> list[ir.Node]:
    return list(dict.fromkeys(use.node for use in value.uses()))


def _float(values: np.ndarray) -> ir.TensorProtocol:
    return ir.tensor(np.asarray(values, np.float32))


def _nibbles(codes: np.ndarray) -> np.ndarray:
    """Return int4 codes packed as ONNX stores them: two in a byte, the first in its low half."""
    flat = codes.astype(np.int8).flatten().view(np.uint8) & 0xF
    if len(flat) % 2:
        flat = np.append(flat, np.uint8(0))
    return flat[::2] | (flat[1::2] << 4)
