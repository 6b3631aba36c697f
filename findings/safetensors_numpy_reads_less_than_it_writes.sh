#!/usr/bin/env bash
# safetensors' NumPy functions write bfloat16 and float8 files that they cannot all read.
#
# Guess:    a type that `safetensors.numpy.save` accepts comes back by `load`, from bytes and from a file alike.
# Observed: safetensors 0.8.0 saves bfloat16 and float8_e4m3fn arrays (of ml_dtypes 0.6.0) without a word.
#           `load`, from bytes, then ends in KeyError: 'BF16' (or 'F8_E4M3') for both. `load_file` reads
#           bfloat16 from a file of the same bytes, but for float8 it ends in an AttributeError about a
#           missing name in NumPy. float16 and complex64 come back both ways.
# So:       read such files by the PyTorch functions, and try a low-bit export by reading it before the
#           original is deleted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 ml_dtypes==0.6.0 safetensors==0.8.0
cd "$folder"
cat > try.py <<'PYTHON'
import sys

import ml_dtypes  # registers the types with NumPy
import numpy as np
from safetensors import numpy as files


def outcome(read):
    try:
        return str(read()["a"].dtype)
    except Exception as error:
        return type(error).__name__


got = {}
for name in ("float16", "complex64", "bfloat16", "float8_e4m3fn"):
    content = files.save({"a": np.ones((2, 2)).astype(name)})
    with open("a.safetensors", "wb") as file:
        file.write(content)
    got[name] = outcome(lambda: files.load(content)), outcome(lambda: files.load_file("a.safetensors"))
    print(f"{name}: from bytes {got[name][0]}, from a file {got[name][1]}")
expected = {
    "float16": ("float16", "float16"),
    "complex64": ("complex64", "complex64"),
    "bfloat16": ("KeyError", "bfloat16"),
    "float8_e4m3fn": ("KeyError", "AttributeError"),
}
sys.exit("not as observed" if got != expected else 0)
PYTHON
"$folder/venv/bin/python" try.py
