#!/usr/bin/env bash
# A parameter's class survives a deep copy but not torch.save; its attributes survive torch.save but not a copy.
#
# Guess:    a subclass of torch.nn.Parameter with an attribute, as quantizers use for scales, comes back from
#           torch.load and from copy.deepcopy as what it was, as a subclass of torch.Tensor does from torch.load.
# Observed: torch 2.14.1. From torch.load, and from pickle alike, it comes back as a plain Parameter with its
#           attributes; from copy.deepcopy with its class and without its attributes. Nothing warns.
# So:       what must survive belongs into the module, not into the parameter's class or attributes: an isinstance
#           check that holds in training fails on a module saved whole, and an attribute is missing on the deep
#           copy that an average of weights or a momentum encoder is made by.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
cd "$folder"
cat > try.py <<'PYTHON'
import copy
import io
import pickle
import sys

import torch
from torch import nn


class Scale(nn.Parameter):
    pass


class Codes(torch.Tensor):
    pass


def loaded(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


scale, codes = Scale(torch.ones(2)), torch.ones(2).as_subclass(Codes)
scale.bits = codes.bits = 4
got = {
    "tensor, loaded": loaded(codes),
    "parameter, loaded": loaded(scale),
    "parameter, unpickled": pickle.loads(pickle.dumps(scale)),
    "parameter, deep copy": copy.deepcopy(scale),
}
got = {name: (type(value).__name__, getattr(value, "bits", None)) for name, value in got.items()}
for name, (kind, bits) in got.items():
    print(f"{name}: a {kind}, bits {bits}")
expected = {
    "tensor, loaded": ("Codes", 4),
    "parameter, loaded": ("Parameter", 4),
    "parameter, unpickled": ("Parameter", 4),
    "parameter, deep copy": ("Scale", None),
}
sys.exit("not as observed" if got != expected else 0)
PYTHON
venv/bin/python try.py
