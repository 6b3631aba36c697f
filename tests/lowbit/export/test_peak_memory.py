"""Peak memory of a model in a process of its own, against the bytes of its weights."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lowbit.common.child_python import import_variables
from lowbit.export.peak_memory import peak_memory

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_peak_memory_counts_the_weights(runtime, tmp_path):
    pytest.importorskip(runtime)
    weight = np.ones((100, 100_000), np.float32)
    values = [
        onnx.helper.make_tensor_value_info(name, 1, ["N", size])
        for name, size in (("x", 100), ("y", 100_000))
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        values[:1],
        values[1:],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "m.onnx"
    opset = [onnx.helper.make_opsetid("", 21)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    assert peak_memory(path, runtime, (1, 100)) > weight.nbytes
    with pytest.raises(ValueError, match="was not measured"):
        peak_memory(tmp_path / "absent.onnx", runtime, (1, 100))


def test_the_process_that_is_measured_holds_a_runtime_and_no_torch():
    lines = "import sys, lowbit.export.peak_memory\nsys.exit('torch' in sys.modules)"
    environment = {**os.environ, **import_variables()}
    done = subprocess.run([sys.executable, "-c", lines], env=environment, timeout=60)
    assert done.returncode == 0
