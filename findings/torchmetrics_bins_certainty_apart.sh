#!/usr/bin/env bash
# torchmetrics' calibration error puts answers of confidence 1 into a bin of their own, beyond the n it is told.
#
# Guess:    MulticlassCalibrationError(n_bins=10) is the expected calibration error over ten bins: 0.95 and 1.0 share
#           the last one. A wrong answer given with 1.0 and a right one with 0.95 are then half right at a mean
#           confidence of 0.975: 0.475.
# Observed: torchmetrics 1.9.0 gives 0.525, the mean of 1 and 0.05: an eleventh bin holds the 1.0 alone. It is no
#           limiting case: softmax in float32 rounds to exactly 1 as soon as a class leads by 17, and a network as sure
#           as that is the one whose calibration is in question. With 0.9999 instead of 1.0 it gives the 0.475 of ten bins.
# So:       before comparing with published calibration errors, clamp confidences just below 1, or bin them yourself;
#           a change of temperature, or of the type that softmax runs in, moves answers between the last two bins.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchmetrics==1.9.0 numpy==2.4.6
cd "$folder"
cat > bins.py <<'PYTHON'
import sys

import torch
from torchmetrics.classification import MulticlassCalibrationError

ANSWERS = torch.tensor([1, 0])  # the first is answered wrong, the second right
SEEN = {0.9999: 0.47495, 1.0: 0.525}
changed = False
for sure, expected in SEEN.items():
    confidences = torch.tensor([[sure, 1 - sure], [0.95, 0.05]])
    error = MulticlassCalibrationError(num_classes=2, n_bins=10)(confidences, ANSWERS).item()
    print(f"confidences {sure} and 0.95: calibration error {error:.5f}")
    changed |= abs(error - expected) > 1e-4
lead = next(n for n in range(1, 40) if torch.tensor([float(n), 0.0]).softmax(0)[0] == 1)
print(f"softmax in float32 is exactly 1 from a lead of {lead}")
if changed or lead != 17:
    sys.exit("torchmetrics does otherwise now: look at this finding again")
PYTHON
"$folder/venv/bin/python" bins.py
