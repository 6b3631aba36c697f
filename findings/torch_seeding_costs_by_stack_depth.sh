#!/usr/bin/env bash
# Without a GPU, torch.manual_seed takes longer the deeper the caller's stack is: a millisecond inside a trainer.
#
# Guess:    torch.manual_seed sets a few generators' states: microseconds, wherever it is called from. A training
#           that can be resumed at any step may seed each step.
# Observed: with torch 2.14.1 and no accelerator it took 0.12 ms from a script's first level, 0.46 ms from 50 calls
#           further in and 1.6 ms from 200; torch.default_generator.manual_seed took 0.001 ms from each. For each
#           kind of accelerator that is absent, the seeding is queued until one appears, together with the formatted
#           call stack, which is formatted for every seed.
# So:       where torch.accelerator.is_available() is false, seed torch.default_generator, which draws the same
#           numbers. Test suites that seed each test, under a runner as deep as pytest, notice it too.
# Checked:  200 calls further in it takes at least four times as long; the numbers drawn are the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
cd "$folder"
cat > seeds.py <<'PYTHON'
import sys
import time

import torch


def milliseconds(seed, calls=100):
    seed(0)
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        for _ in range(calls):
            seed(0)
        best = min(best, time.process_time() - start)
    return 1e3 * best / calls


def further_in(depth, function):
    return function() if depth == 0 else further_in(depth - 1, function)


if torch.accelerator.is_available():
    print("not checked: this machine has an accelerator")
    sys.exit()
took = {}
for depth in (0, 50, 200):
    took[depth] = further_in(depth, lambda: milliseconds(torch.manual_seed))
    alone = further_in(depth, lambda: milliseconds(torch.default_generator.manual_seed))
    print(f"{depth} calls in: torch.manual_seed {took[depth]:.3f} ms, the generator alone {alone:.4f} ms")
torch.manual_seed(3)
drawn = torch.rand(5)
torch.default_generator.manual_seed(3)
if not torch.equal(drawn, torch.rand(5)) or took[200] < 4 * took[0]:
    sys.exit("torch does otherwise now: look at this finding again")
PYTHON
"$folder/venv/bin/python" seeds.py
