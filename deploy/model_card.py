"""The text beside an exported model: what it is, how to run it, and the check it passed."""

from collections.abc import Mapping
from dataclasses import dataclass

from lowbit.common.text import printable, size
from lowbit.deploy.agreement import Agreement
from lowbit.deploy.model_file import facts_of
from lowbit.deploy.subject import Subject
from lowbit.export.onnx_export import INPUT

_CARD = """# {name}

{architecture} at **{precision}**, {bytes}.

| | |
|---|---|
{facts}

## Run it

```python
{code}
```

`{output}` is an array (N, {width}) for N images.{meaning}

## Check

Compared with the simulation in torch on {images} test images of {dataset}. The noise floor is the agreement
of that simulation with itself in float64, which rounds differently.

| runtime | {measure} | noise floor | layers on integers | in floating point |
|---|---|---|---|---|
{checks}
"""

_CODE = """import numpy as np
{imports}
from PIL import Image

image = Image.open("image.png").convert("RGB")
scale = {resize} / min(image.size)
image = image.resize([round(scale * side) for side in image.size], Image.Resampling.{resample})
left, top = ((side - {size}) // 2 for side in image.size)
pixels = np.asarray(image.crop((left, top, left + {size}, top + {size})), np.float32) / 255
x = ((pixels - {mean}) / {std}).astype(np.float32).transpose(2, 0, 1)[None]  # (1, 3, {size}, {size})
{run}
{show}"""

_IMPORTS = {"openvino": "import openvino as ov", "onnxruntime": "import onnxruntime as ort"}
# Without the hint OpenVINO computes what is left in floating point in bfloat16, where the CPU has it.
_RUN = {
    "openvino": 'model = ov.Core().compile_model("{name}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})\n'
    "{output} = model(x)[0]",
    "onnxruntime": 'session = ort.InferenceSession("{name}", providers=["CPUExecutionProvider"])\n'
    '{output} = session.run(None, {{"{input}": x}})[0]',
}


@dataclass(frozen=True)
class RuntimeCheck:
    """How a runtime computes a model.

    Attributes:
        version: of the runtime.
        integers, floats: names of the quantized layers that it computes on integers, and of those in
            floating point.
    """

    version: str
    integers: list[str]
    floats: list[str]


def model_card(
    name: str,
    subject: Subject,
    *,
    file_bytes: int,
    runtime: str,
    agreement: Agreement,
    checks: Mapping[str, RuntimeCheck],
) -> str:
    """Return the card of a model in Markdown.

    Args:
        name: of the model's file.
        subject: what was exported.
        file_bytes: of the model.
        runtime: the one that the code uses.
        agreement: of each runtime with the simulation.
        checks: by runtime.
    """
    return _CARD.format(
        name=name,
        architecture=subject.architecture,
        precision=subject.precision,
        bytes=size(file_bytes),
        facts="\n".join(f"| {key} | {value} |" for key, value in _facts(subject).items()),
        code=code(name, subject, runtime),
        output=subject.output,
        width=len(subject.classes) if subject.classes else "D",
        meaning="" if subject.classes is None else " Classes, from 0: " + _names(subject.classes),
        images=agreement.images,
        dataset=printable(subject.dataset),
        measure="same class" if agreement.measure == "predictions" else "cosine of features",
        checks="\n".join(
            f"| {each} {check.version} | {agreement.graphs[each]:.4f} | {agreement.floor:.4f} "
            f"| {len(check.integers)} of {len(check.integers) + len(check.floats)} "
            f"| {', '.join(check.floats) or 'none'} |"
            for each, check in checks.items()
        ),
    )


def code(name: str, subject: Subject, runtime: str) -> str:
    """Return Python that runs a model on `image.png`."""
    view = subject.view
    return _CODE.format(
        imports=_IMPORTS[runtime],
        resize=view.resize,
        resample=view.interpolation.upper(),
        size=view.size,
        mean=subject.mean,
        std=subject.std,
        run=_RUN[runtime].format(name=name, output=subject.output, input=INPUT),
        show=f"print({subject.output}.argmax(1))" if subject.classes else "print(features.shape)",
    )


def _facts(subject: Subject) -> dict[str, object]:
    facts = facts_of(subject)
    side = subject.view.size
    return {
        "precision": f"{facts['precision']} (weight bits, activation bits)",
        "policy": f"{facts['policy']}, fingerprint {facts['policy_fingerprint']}",
        "input": f"`{INPUT}`, float32 (N, 3, {side}, {side}), RGB",
        "preparation": f"shorter side to {facts['resize']} pixels ({facts['interpolation']}), central "
        f"{side} x {side}, values in 0..1",
        "normalization": f"minus {facts['mean']}, divided by {facts['std']}",
        "output": f"`{subject.output}`",
        "calibrated on": printable(subject.dataset),
        "checkpoint": f"SHA-256 {facts['checkpoint_sha256']}",
    }


def _names(classes: tuple[str, ...]) -> str:
    return ", ".join(printable(name) for name in classes) + "."
