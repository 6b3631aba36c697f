"""Every snippet of README.md and docs/: Python runs, command lines parse, YAML is valid.

A document's Python snippets run in order in one namespace, in a folder of small stand-ins for the files
they name. What `# or ...` at the end of a line offers instead runs too. Of a command the arguments are
parsed, and its recipe or suite is read; nothing is run. A YAML snippet is preceded by a comment that
says what it is, `<!-- yaml: suite -->`; one that cannot be tried says why: `<!-- not tried: ... -->`.
"""

import argparse
import json
import re
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchvision
import yaml

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.claims.claim import load_claims
from lowbit.benchmark.cli import COMMANDS
from lowbit.benchmark.cli import main as command
from lowbit.benchmark.cli.single_jobs.detect import is_detectron2_config
from lowbit.benchmark.planning.suite import Suite, load_suite
from lowbit.benchmark.recipes.job_command import read_recipe
from lowbit.benchmark.recipes.yaml_files import load_yaml, validate
from lowbit.benchmark.submissions import read_entry
from lowbit.common.shipped_configs import find_config
from lowbit.detection.datasets.catalog import load_detection
from lowbit.transfer.recipe.protocol_registry import PROTOCOLS
from tests.benchmark.result_folders import write
from tests.detection.annotated_folders import write_voc

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_COMMAND = re.compile(r"^(python tools/|lowbit-bench |torchrun )", re.MULTILINE)
_STAGES = {"pretrain": "pretrain", "transfer": "transfer", "detect": "detection"}
_SCRIPTS = {"train_net": "detect", "run_all": "run"}  # others are named as their command
_OTHER_PROGRAMS = {"ffmpeg"}
_TARGETS = set(re.findall(r"^([a-z\d]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@dataclass(frozen=True)
class Snippet:
    """A fenced block, where it is, and the comment above it."""

    place: str
    language: str
    code: str
    mark: str

    @property
    def tried(self) -> bool:
        return not self.mark.startswith("not tried: ")


def _snippets() -> dict[str, list[Snippet]]:
    found = {}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text, name = path.read_text(), path.relative_to(ROOT).as_posix()
        found[name] = [
            Snippet(
                f"{name}:{text[: m.start('code')].count(chr(10)) + 1}",
                m["language"],
                m["code"],
                m["mark"] or "",
            )
            for m in _FENCE.finditer(text)
        ]
    return found


SNIPPETS = _snippets()
ALL = [snippet for snippets in SNIPPETS.values() for snippet in snippets]
PYTHON = [name for name, found in SNIPPETS.items() if any(s.language == "python" for s in found)]


def of(language: str):
    chosen = [s for s in ALL if s.language == language and s.tried]
    return pytest.mark.parametrize("snippet", chosen, ids=[s.place for s in chosen])


def test_every_snippet_is_of_a_kind_that_is_tried():
    assert len(ALL) > 50 and {s.language for s in ALL} == {"bash", "bibtex", "python", "yaml", ""}
    for snippet in ALL:
        assert snippet.language or not _COMMAND.search(snippet.code), (
            f"{snippet.place}: say ```bash"
        )
        assert snippet.tried or len(snippet.mark) > 25, f"{snippet.place}: say why it is not tried"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that snippets name, as small as they can be."""
    folder = tmp_path_factory.mktemp("snippets")
    torch.manual_seed(0)
    net = create_backbone("resnet10_slim")
    save_backbone(folder / "my.pth", net, {"method": "SSQL", "data": "digits"})
    moco = {f"module.encoder_q.{k}": v for k, v in net.state_dict().items()}
    moco |= {f"module.encoder_k.{k}": v + 1 for k, v in net.state_dict().items()}
    torch.save({"state_dict": moco}, folder / "moco_v2_800ep_pretrain.pth.tar")
    resnet = torchvision.models.resnet18().state_dict()
    converted = {k: v for k, v in resnet.items() if not k.startswith("fc.")}
    torch.save(converted, folder / "my.torchvision.pth")
    for number, (name, value) in enumerate((("SSQL", 91.0), ("SimSiam", 88.0))):
        for runs in ("runs", "runs/demo", "runs/transfer"):
            write(
                folder / runs, f"{number:012x}", name=name, values={"FP": value, "4w4a": value - 3}
            )
    predictions = pd.DataFrame({"split": ["test", "val"], "label": [1, 2], "4w4a": [1, 0]})
    for runs in ("runs/demo", "runs/transfer"):
        (folder / runs / "JOB").mkdir()
    predictions.to_parquet(folder / "runs/transfer/JOB/predictions.parquet")
    raccoon = [("raccoon", (5, 5, 20, 20), 0)]
    parts = {"trainval": ["a", "b"], "test": ["c"]}
    write_voc(folder / "datasets/raccoon", dict.fromkeys("abc", raccoon), parts)
    test = load_detection("voc:raccoon", "test", root=str(folder / "datasets")).to_coco()
    found = {"image_id": test["images"][0]["id"], "category_id": test["categories"][0]["id"]}
    found = [found | {"bbox": [4, 4, 15, 15], "score": 0.9}]
    (folder / "runs/demo/JOB/detections.json").write_text(json.dumps(found))
    (folder / "SUITE.yaml").write_text("name: any\n")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


@pytest.fixture
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(PROTOCOLS, "_obj_map", dict(PROTOCOLS._obj_map))
    return folder


@pytest.mark.parametrize("document", PYTHON)
def test_python_runs(document, there):
    scope = {"__name__": Path(document).stem}
    for snippet in SNIPPETS[document]:
        if snippet.language == "python" and snippet.tried:
            exec(compile(snippet.code, snippet.place, "exec"), scope)
            for line in snippet.code.splitlines():
                if found := re.fullmatch(r"(\w+) = .*# or ([^#]+\))", line):
                    kind = type(scope[found[1]])
                    other = eval(found[2], dict(scope))
                    assert isinstance(other, torch.nn.Module) == issubclass(kind, torch.nn.Module)


class _ParsedError(Exception):
    """The arguments of a command line were accepted."""


@pytest.fixture
def parse_only(monkeypatch):
    """Make every command stop where its arguments are parsed."""

    def stopping(parse):
        def stop(*args, **kwargs):
            parse(*args, **kwargs)
            raise _ParsedError

        return stop

    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, stopping(parse))


def _commands(code: str) -> list[list[str]]:
    joined = code.replace("\\\n", " ")
    found = [shlex.split(line, comments=True) for line in joined.splitlines()]
    assigns = re.compile(r"[A-Z_]+=.*")
    return [words[bool(assigns.fullmatch(words[0])) :] for words in found if words]


def _command(words: list[str]) -> list[str] | None:
    """Return the words of a `lowbit-bench` command, None for make and other programs."""
    program, *rest = words
    if program == "make":
        assert set(rest) <= _TARGETS
        return None
    if program == "python":
        script, *rest = rest
        if script == "-m":
            module, *rest = rest
            if module == "pytest":
                assert any((ROOT / word).is_dir() for word in rest)
            else:
                assert find_spec(module) is not None and module.startswith("lowbit.")
            return None
        assert (ROOT / script).is_file()
        name = Path(script).stem
        if name == "run_all" and rest[0] in ("check", "status"):
            return rest
        return [_SCRIPTS.get(name, name), *rest]
    assert program in {"lowbit-bench", *_OTHER_PROGRAMS}, f"{program} is not known here"
    return rest if program == "lowbit-bench" else None


@of("bash")
def test_command_lines_are_understood(snippet, there, parse_only):
    commands = _commands(snippet.code)
    assert commands
    for words in commands:
        rest = _command(words)
        if rest is None:
            continue
        assert rest[0] in COMMANDS, words
        with pytest.raises(_ParsedError):
            command(rest)
        if rest[0] in _STAGES:
            _read_recipe(*rest)
        elif rest[0] == "run":
            suite, *more = [word for word in rest[1:] if not word.startswith("--")]
            overrides = [word for word in more if "=" in word]
            assert load_suite(find_config(suite, "suites"), overrides).name


def _read_recipe(name: str, *words: str) -> None:
    config = words[words.index("--config-file") + 1]
    options, keys = 2 + 2 * ("--output-dir" in words), words
    keys = list(words[options:])
    if is_detectron2_config(find_config(config, _STAGES[name])):
        return
    assert read_recipe(_STAGES[name], config, keys).name


def _suite(path: Path, content: dict) -> None:
    """Validate a suite; the recipes it names exist, a part of one included."""
    suite = Suite.model_validate({"name": "part", **content})
    for entry in (*suite.transfer, *suite.detection, *suite.deploy):
        assert (ROOT / "configs/suites" / entry.recipe).is_file(), entry.recipe
    for checkpoint in suite.checkpoints:
        if checkpoint.pretrain:
            assert (ROOT / "configs/suites" / checkpoint.pretrain).is_file()


def _transfer(path: Path, content: dict) -> None:
    written = ROOT / "configs/transfer" / content.get("_BASE_", "")
    mapping = load_yaml(written) if "_BASE_" in content else {}
    merged = {**mapping, **{k: v for k, v in content.items() if k != "_BASE_"}}
    assert validate("transfer", {"checkpoint": "my.pth", **merged}, source=path)


def _detection(path: Path, content: dict) -> None:
    assert validate("detection", {"detector": "detector.pth", **content}, source=path)


def _detectron2(path: Path, content: dict) -> None:
    assert is_detectron2_config(path)
    config = pytest.importorskip("detectron2.config")
    cfg = config.get_cfg()
    cfg.merge_from_other_cfg(config.CfgNode(content))


def _entry(path: Path, content: dict) -> None:
    assert read_entry(path).name == content["name"]


def _claims(path: Path, content: dict) -> None:
    assert {claim.id for claim in load_claims(path)} <= {claim.id for claim in load_claims()}


_KINDS = {
    "suite": _suite,
    "transfer recipe": _transfer,
    "detection recipe": _detection,
    "Detectron2 configuration": _detectron2,
    "entry of a submission": _entry,
    "claims": _claims,
}


@of("yaml")
def test_yaml_is_what_it_is_said_to_be(snippet, there):
    kind = snippet.mark.removeprefix("yaml: ")
    assert kind in _KINDS, f"{snippet.place}: say above it what it is: <!-- yaml: suite -->, ..."
    document = snippet.place.partition(":")[0]
    for other in SNIPPETS[document]:  # modules that it names
        if found := re.match(r"# (\w+\.py)\b", other.code):
            (there / found[1]).write_text(other.code)
    path = there / "snippet.yaml"
    path.write_text(snippet.code)
    _KINDS[kind](path, yaml.safe_load(snippet.code))
