#!/usr/bin/env bash
# transformers 5 saves models under other tensor names than their state dict has.
#
# Guess:    save_pretrained writes what state_dict() returns, so that a file and a `torch.save` of the same
#           network have the same names.
# Observed: transformers 5.24.0. Networks were renamed in memory (`layers.0.attention.q_proj`), while files keep
#           the names of release 4 (`encoder.layer.0.attention.attention.query`): of DINOv2, ViT and ViT-MAE no
#           name inside a block's attention is the same. DINOv3 has a `model.` in memory that its files lack.
#           load_state_dict(strict=True) of a file's tensors fails; from_pretrained translates.
# So:       a reader of checkpoints needs both namings for each of these networks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 transformers==5.24.0 safetensors==0.8.0
cat > "$folder/try.py" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import transformers
from safetensors.torch import load_file

small = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
    "intermediate_size": 64,
}  # fmt: skip
decoder = {f"decoder_{name}": value for name, value in small.items() if name.startswith(("hidden", "num", "inter"))}
networks = {
    "Dinov2": transformers.Dinov2Model(transformers.Dinov2Config(**small)),
    "ViT": transformers.ViTModel(transformers.ViTConfig(**small)),
    "ViTMAE": transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**small, **decoder)),
    "DINOv3": transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**small)),
}
wrong = []
for name, network in networks.items():
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        saved = load_file(Path(folder) / "model.safetensors")
    memory = network.state_dict()
    common = saved.keys() & memory.keys()
    print(f"{name}: {len(saved)} tensors in the file, {len(memory)} in memory, {len(common)} of one name")
    attention = [n for n in common if "attention" in n]
    try:
        network.load_state_dict(saved, strict=True)
        loads = True
    except RuntimeError:
        loads = False
    print(f"  of these in attention: {len(attention)}; loads strictly: {loads}")
    if attention or loads or len(saved) != len(memory):
        wrong.append(name)
sys.exit(f"changed: {wrong}" if wrong else 0)
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
