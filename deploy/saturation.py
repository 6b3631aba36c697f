"""Whether a runtime's products of unsigned and signed bytes saturate on this machine.

x86 processors without VNNI multiply bytes by an instruction that adds two products into 16 bits, where
255 * 127 + 255 * 127 does not fit (PMADDUBSW). Some kernels use it, and clip such sums silently.
"""

from functools import cache

import numpy as np

from lowbit.export.runtime import Runtime, get_runtime

EXACT, SATURATE = "exact", "saturate"
_CHANNELS = 64
_SUM = 255.0 * 127 * _CHANNELS
_CODE = 200  # of that sum, where the output is quantized


@cache
def products(runtime: str) -> str:
    """Return EXACT, or SATURATE if sums of a runtime's u8 x s8 products are clipped here.

    Raises:
        RuntimeMissingError: the runtime is not installed.
    """
    return _measured(get_runtime(runtime))


def _measured(runtime: Runtime) -> str:
    x = np.full((1, _CHANNELS, 8, 8), 255, np.float32)
    (found,) = runtime.load(_largest_products(), threads=1).run(x)
    return EXACT if np.allclose(found, _SUM, rtol=1e-2) else SATURATE


def _largest_products() -> bytes:
    """Return a model of one convolution whose activations are 255 and whose weights are 127.

    Its output is quantized too: ONNX Runtime would compute it in floating point otherwise.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "codes": np.full((_CHANNELS, _CHANNELS, 1, 1), 127, np.int8),
        "scale": np.ones(_CHANNELS, np.float32),
        "step": np.float32(_SUM / _CODE),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], axis=0),
        helper.make_node("Conv", ["a", "w"], ["sums"], name="conv"),
        helper.make_node("QuantizeLinear", ["sums", "step", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "step", "zero"], ["y"]),
    ]
    shapes = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", _CHANNELS, 8, 8])
        for name in "xy"
    }
    graph = helper.make_graph(
        nodes,
        "products",
        [shapes["x"]],
        [shapes["y"]],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()
