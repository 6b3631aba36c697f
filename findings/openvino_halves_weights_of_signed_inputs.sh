#!/usr/bin/env bash
# OpenVINO halves the weights of an integer convolution whose input is signed, and rounds them, on CPUs without VNNI.
#
# Guess:    a convolution of codes -8..7 with codes -3..3 is exact on every CPU: its sums are far from the 16 bits in
#           which kernels without VNNI add two products, so nothing can be clipped.
# Observed: openvino 2026.4.1 on an x86 CPU with AVX2 and without VNNI (jit_avx2_i8) gives what weights of half the
#           codes, rounded to whole numbers, would give: 3 and 1 become other numbers, 2 stays 2. Of numbers whose sums
#           are all exact in float32, ninety-nine in a hundred come out different, without a warning. With doubled
#           codes and half their scale every number is right, as it is where the input is unsigned or the kernel has
#           one pixel and no groups.
# So:       where an input is signed, store even codes; the exporter does where they fit. Codes of eight bits do not.
#           A CPU with VNNI halves nothing; the script says so there and ends.
set -euo pipefail
if grep -q -e avx512_vnni -e avx_vnni /proc/cpuinfo; then
    echo "This CPU has VNNI; nothing was tried."
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
cat > halves.py <<'PYTHON'
import numpy as np
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
CHANNELS, SIDE = 16, 12
CODES = RNG.integers(-3, 4, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)


def model(factor, kind):
    """A convolution of codes times `factor`, with their scale divided by it, of inputs of a type."""
    constants = {
        "x_scale": np.float32(1),
        "x_zero": np.array(0, kind),
        "least": np.array(0 if kind is np.uint8 else -8, kind),
        "most": np.array(15 if kind is np.uint8 else 7, kind),
        "codes": CODES * np.int8(factor),
        "w_scale": np.full(CHANNELS, 1 / factor, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
        helper.make_node("Clip", ["xq", "least", "most"], ["xc"]),
        helper.make_node("DequantizeLinear", ["xc", "x_scale", "x_zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["codes", "w_scale"], ["w"], axis=0),
        helper.make_node("Conv", ["xd", "w"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", CHANNELS, side, side])
        for name, side in (("x", SIDE), ("y", SIDE - 2))
    )
    stored = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "graph", [x], [y], stored)
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def found(factor, kind, images):
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(model(factor, kind)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    kernels = [
        str(node.get_rt_info()["primitiveType"].value)
        for node in compiled.get_runtime_model().get_ordered_ops()
        if str(node.get_rt_info()["layerType"].value) == "Convolution"
    ]
    return compiled({0: images})[0], kernels


def convolved(weights, images):
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (2, 3))
    return np.einsum("ocij,nchwij->nohw", weights.astype(np.float32), windows)


signed = RNG.integers(-8, 8, (2, CHANNELS, SIDE, SIDE)).astype(np.float32)
unsigned = np.abs(signed)
halved = 2 * np.round(CODES / 2)  # to even, as processors round

y, kernels = found(1, np.int8, signed)
print(f"signed input, codes as they are ({', '.join(kernels)}): {(y != convolved(CODES, signed)).mean():.0%} differ")
assert all("i8" in kernel.lower() for kernel in kernels), kernels
assert (y != convolved(CODES, signed)).mean() > 0.8
np.testing.assert_array_equal(y, convolved(halved, signed))
print("they are what halved and rounded codes give")

y, _ = found(2, np.int8, signed)
np.testing.assert_array_equal(y, convolved(CODES, signed))
print("signed input, doubled codes: all equal")

y, _ = found(1, np.uint8, unsigned)
np.testing.assert_array_equal(y, convolved(CODES, unsigned))
print("unsigned input, codes as they are: all equal")
PYTHON
venv/bin/python halves.py
