"""Packages, ranges and extras; the tested set is pinned in requirements.txt."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Folders at the top of the repository that are imported, and installed, as lowbit.NAME.
OUTSIDE = ("benchmark", "deploy", "detection", "pretrain", "tools", "transfer")

setup(
    name="lowbit-bench",
    version="0.1.0",
    description="Any backbone checkpoint, every bit-width, every task, one board.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["lowbit", "lowbit.*"]),
        *(
            f"lowbit.{name}"
            for top in OUTSIDE
            for name in (top, *(f"{top}.{inner}" for inner in find_packages(top)))
        ),
        "lowbit.configs",
    ],
    package_dir={
        "lowbit": "lowbit",
        "lowbit.configs": "configs",
        **{f"lowbit.{name}": name for name in OUTSIDE},
    },
    package_data={
        "lowbit.quant": ["**/*.c"],
        "lowbit.data": ["**/*.json"],
        "lowbit.benchmark": [f"**/*.{kind}" for kind in ("csv", "yaml", "css", "js", "j2")],
        "lowbit.configs": ["**/*.yaml"],
    },
    entry_points={"console_scripts": ["lowbit-bench = lowbit.benchmark.cli:main"]},
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "timm>=1.0.20",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.7,<0.1.10",  # what Detectron2 accepts
        "numpy>=1.26",
        "scipy>=1.11",
        "pandas>=2.2",
        "pyarrow>=17",
        "pycocotools>=2.0.8",
        "pyyaml>=6",
        "pydantic>=2.7",
        "pydantic-core>=2.18",
        "tqdm>=4.66",
        "scikit-learn>=1.5",
        "safetensors>=0.4.5",
        "tensorboard>=2.16",
        "jinja2>=3.1",
        "markupsafe>=2.1",
        "itables>=2.2",
        "plotly>=5.24",
        "matplotlib>=3.9",
        "pillow>=10",
    ],
    extras_require={
        # Install torch first and pass --no-build-isolation: Detectron2 compiles against it.
        "detectron2": [(HERE / "requirements-detectron2.txt").read_text(encoding="utf-8").strip()],
        "ray": ["ray>=2.40"],
        "deploy": [
            "onnx>=1.18",
            "onnx-ir>=0.1.9",
            "onnxscript>=0.5",
            "onnxruntime>=1.22",
            "openvino>=2025.1",
        ],
        "bench": ["brevitas>=0.12", "nncf>=2.19"],  # peers that lowbit-bench bench times
        "evidence": ["selenium>=4.25"],  # README.md's picture
        "dev": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "selenium>=4.25",
            "statsmodels>=0.14",
        ],
    },
)
