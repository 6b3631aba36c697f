#!/usr/bin/env bash
# NumPy arrays of int4, bfloat16 and float8 sum and average in their own few bits.
#
# Guess:    ml_dtypes gives NumPy the narrow types of quantized networks, and NumPy's habits hold for them:
#           int8 sums in 64 bits, float16 averages in float32. So the mean of equal numbers is that number.
# Observed: ml_dtypes 0.6.0 with NumPy 2.4.6 keeps every partial sum in the array's own type. The mean of 4,096
#           ones is 0.0625 in bfloat16 (the sum stops at 256) and 0.0039 in float8_e4m3fn (it stops at 16);
#           float16 gives 1.0. Thirty-two int4 codes of 7 have the sum 0 and the mean 0, and the sum of four
#           is -4: it wraps at 4 bits. Their dot product wraps at 8 bits instead (32 where 1568 is right),
#           and -(-8) is 8, because negation and matrix product return int8 but sum and mean return int4.
#           Nothing warns. Naming the type (`a.sum(dtype=np.int32)`, `a.mean(dtype=np.float32)`) is right.
# So:       widen codes and narrow floats before any reduction; a bias or a histogram moment computed on the
#           stored codes is plausible and wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 ml_dtypes==0.6.0
cat > "$folder/reduce.py" <<'PYTHON'
import sys

import ml_dtypes
import numpy as np

ones = {name: np.ones(4096, name) for name in ("float16", "bfloat16", "float8_e4m3fn")}
codes = np.full(32, 7).astype(ml_dtypes.int4)
got = {
    **{f"mean of 4096 ones, {name}": float(a.mean()) for name, a in ones.items()},
    **{f"the same, asked for in float32, {name}": float(a.mean(dtype=np.float32)) for name, a in ones.items()},
    "sum of 4 codes": int(codes[:4].sum()),
    "sum of 32 codes": int(codes.sum()),
    "mean of 32 codes": float(codes.mean()),
    "sum of 32 codes in int32": int(codes.sum(dtype=np.int32)),
    "dot product with itself": int(codes @ codes),
    "minus -8": int((-np.array([-8]).astype(ml_dtypes.int4))[0]),
}
expected = {
    "mean of 4096 ones, float16": 1.0,
    "mean of 4096 ones, bfloat16": 0.0625,
    "mean of 4096 ones, float8_e4m3fn": 0.00390625,
    **{f"the same, asked for in float32, {name}": 1.0 for name in ones},
    "sum of 4 codes": -4,
    "sum of 32 codes": 0,
    "mean of 32 codes": 0.0,
    "sum of 32 codes in int32": 224,
    "dot product with itself": 32,
    "minus -8": 8,
}
for name, value in got.items():
    print(f"{name}: {value}")
sys.exit("not as observed" if got != expected else 0)
PYTHON
"$folder/venv/bin/python" "$folder/reduce.py"
