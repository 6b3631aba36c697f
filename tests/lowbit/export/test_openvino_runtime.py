"""Sessions of OpenVINO leave the process as they found it."""

import subprocess
import sys

import pytest

pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")

# Where the kernel would put the frame of a signal handler: (address, size), and what is mapped.
SIGNAL_STACK = """
import ctypes, faulthandler, gc, sys
from pathlib import Path

from lowbit.export.openvino_runtime import load


class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def is_mapped():
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    areas = [line.split()[0].split("-") for line in open("/proc/self/maps")]
    return any(int(low, 16) <= stack.address < int(high, 16) for low, high in areas)


faulthandler.enable()  # which takes a stack for signal handlers, as pytest does
assert is_mapped()
sessions = [load(Path(sys.argv[1]), threads=1) for _ in range(3)]
while sessions:
    del sessions[0]
    gc.collect()
    assert is_mapped()
print("mapped")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sessions_that_end_leave_a_stack_for_signal_handlers(tmp_path):
    images, sums = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 4, 4])
        for name in ("images", "sums")
    )
    node = onnx.helper.make_node("Add", ["images", "images"], ["sums"])
    graph = onnx.helper.make_graph([node], "sum", [images], [sums])
    opset = onnx.helper.make_opsetid("", 21)
    path = tmp_path / "sum.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    command = [sys.executable, "-c", SIGNAL_STACK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "mapped\n"), done.stderr
