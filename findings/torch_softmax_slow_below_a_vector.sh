#!/usr/bin/env bash
# On a CPU torch's softmax takes longer over 15 classes than over 16, and longer with AVX-512 than with AVX2.
#
# Guess:    a softmax's time grows with the number of classes, and wider vectors only help.
# Observed: with torch 2.14.1, rows with fewer numbers than the processor's vectors hold (16 with AVX-512, 8 with AVX2)
#           are computed one number at a time. With AVX-512, 4,096 rows of 15 took 5 to 12 times as long as rows of 16,
#           and rows of 7 took 3 to 6 times as long, as they did with AVX2; log_softmax alike. With AVX-512 ten
#           classes took 3.6 times as long as on the same processor with ATEN_CPU_CAPABILITY=avx2. The same numbers
#           the other way round in memory, softmax(0) of (10, 4096), took a sixteenth.
# So:       CIFAR-10 has ten classes. Where many small heads are trained, keep images last and classes before them.
# Checked:  rows of 7 take at least 1.5 times as long as rows of 16; nothing is checked without AVX2 or AVX-512.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
cd "$folder"
cat > widths.py <<'PYTHON'
import sys
import time

import torch

torch.set_num_threads(1)


def microseconds(softmax, rounds=9, calls=100):
    softmax()
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(calls):
            softmax()
        best = min(best, (time.process_time() - start) / calls)
    return best * 1e6


rows = {classes: torch.randn(4096, classes) for classes in (7, 10, 15, 16)}
took = {classes: microseconds(lambda x=x: x.softmax(1)) for classes, x in rows.items()}
columns = rows[10].T.contiguous()
across = microseconds(lambda: columns.softmax(0))
vectors = torch.backends.cpu.get_cpu_capability()
print(f"{vectors}:", ", ".join(f"{n} classes {t:.0f} us" for n, t in took.items()))
print(f"10 classes with images last {across:.0f} us")
if not vectors.startswith("AVX"):
    print("not checked: this processor has neither AVX2 nor AVX-512")
    sys.exit()
if took[7] < 1.5 * took[16]:
    sys.exit("torch does otherwise now: look at this finding again")
PYTHON
"$folder/venv/bin/python" widths.py
