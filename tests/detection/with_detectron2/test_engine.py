"""Detectron2: our configuration of it, and what its trainer does and refuses."""

import math
import pickle
import sys
from pathlib import Path

import pytest
import torch

from lowbit.detection.detector.initial_weights import start_from_backbone
from lowbit.detection.detector.quantize import quantize_detector
from lowbit.detection.evaluation.average_precision import evaluate
from lowbit.quant import Precision, get_policy

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),  # in Detectron2's anchors
]

CONFIGS = Path(__file__).parents[3] / "configs" / "detection" / "detectron2"


@pytest.fixture
def make_cfg(make_recipe, backbone_file, scenes, tmp_path):
    """Return a function that makes the configuration of a tiny recipe, with keys changed."""
    from lowbit.detection.with_detectron2.catalog import register
    from lowbit.detection.with_detectron2.recipe_to_config import to_cfg

    register("tiny_scenes", lambda: scenes)

    def make(*opts, **changes):
        recipe = make_recipe(engine="detectron2", **changes)
        start = start_from_backbone(backbone_file)
        cfg = to_cfg(recipe, start, classes=10, folder=tmp_path, dataset="tiny_scenes")
        cfg.merge_from_list(list(opts))
        return cfg

    return make


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (("MODEL.WEIGHTS", "r50.pkl"), "name a backbone file under MODEL.LOWBIT.CHECKPOINT"),
        (("MODEL.LOWBIT.CHECKPOINT", ""), "names no file to start from"),
        (("MODEL.QUANT.ENABLED", True), "which quantization starts from"),
        (("INPUT.FORMAT", "BGR"), "INPUT.FORMAT RGB, MODEL.PIXEL_MEAN [78."),
        (("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]), "MODEL.PIXEL_STD [82."),
        (("MODEL.BACKBONE.FREEZE_AT", 6), "Use 0 (nothing is frozen), 1 (the stem)"),
        (("MODEL.LOWBIT.NORM", "GN"), "Use one of BN, SyncBN, FrozenBN"),
        (("SOLVER.OPTIMIZER", "ADAM"), "Use one of SGD, ADAMW, SGDT"),
        (("SOLVER.OPTIMIZER", "SGDT"), "no layer is quantized"),
        (("SOLVER.NESTEROV", True), "SOLVER.NESTEROV is set"),
    ],
)
def test_a_configuration_that_would_go_wrong_in_silence_is_refused(make_cfg, opts, told):
    from lowbit.detection.with_detectron2.trainer import LowbitTrainer

    with pytest.raises(ValueError) as caught:
        LowbitTrainer(make_cfg(*opts))
    assert told in str(caught.value)


def test_a_training_state_of_another_model_is_refused(make_cfg):
    from lowbit.detection.with_detectron2.trainer import LowbitTrainer

    cfg = make_cfg("SOLVER.MAX_ITER", 1)
    LowbitTrainer(cfg).train()
    for change in (("MODEL.FPN.OUT_CHANNELS", 64), ("MODEL.RETINANET.NUM_CONVS", 2)):
        other = make_cfg(*change)
        with pytest.raises(ValueError, match="the run was not resumed"):
            LowbitTrainer(other).resume_or_load(resume=True)
    state = Path(cfg.OUTPUT_DIR, Path(cfg.OUTPUT_DIR, "last_checkpoint").read_text())
    state.write_bytes(pickle.dumps({"model": {}}))
    with pytest.raises(ValueError, match=r"cannot be read .*the run was not resumed"):
        LowbitTrainer(cfg).resume_or_load(resume=True)


def test_a_resumed_loader_goes_on_in_the_stream(make_cfg):
    from itertools import islice

    from lowbit.detection.with_detectron2.trainer import LowbitTrainer

    cfg = make_cfg()
    straight = [
        [x["image_id"] for x in b] for b in islice(LowbitTrainer.build_train_loader(cfg), 9)
    ]
    resumed = [
        [x["image_id"] for x in b] for b in islice(LowbitTrainer.build_train_loader(cfg, 8), 5)
    ]
    assert resumed == straight[4:]


def test_no_detector_has_a_scripted_loss():
    """Its first calls in a process round otherwise (see the slow test of `test_config_job`)."""
    import lowbit.detection.with_detectron2.build_detector  # noqa: F401

    modules = [m for name, m in sys.modules.items() if name.startswith("detectron2.modeling.")]
    assert len(modules) > 20
    scripted = (torch.jit.ScriptFunction, torch.jit.ScriptModule)
    found = [
        (m.__name__, n) for m in modules for n, v in vars(m).items() if isinstance(v, scripted)
    ]
    assert found == []


def test_the_loss_normalizer_is_part_of_the_training_state(make_cfg):
    from lowbit.detection.with_detectron2.trainer import LowbitTrainer

    cfg = make_cfg("SOLVER.MAX_ITER", 5)
    trainer = LowbitTrainer(cfg)
    trainer.train()
    known = trainer.model.loss_normalizer
    again = LowbitTrainer(cfg)
    again.resume_or_load(resume=True)
    assert again.model.loss_normalizer == known != 100
    assert again.start_iter == 5


def test_the_trainers_own_evaluation_is_the_recipes(make_cfg, make_recipe, scenes):
    """DefaultTrainer.test through loader, mapper and evaluator, against engine and evaluate."""
    from lowbit.detection.with_detectron2.engine import Detectron2Engine
    from lowbit.detection.with_detectron2.trainer import LowbitTrainer

    cfg = make_cfg("SOLVER.MAX_ITER", 40, "SOLVER.BASE_LR", 0.05)
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    trainer = LowbitTrainer(cfg)
    trainer.model.test_score_thresh = 0.0
    theirs = LowbitTrainer.test(cfg, trainer.model)["bbox"]
    detections = Detectron2Engine().predict(trainer.model, scenes, make_recipe())
    overall = {name: value for name, value in theirs.items() if "-" not in name}
    assert overall == pytest.approx(evaluate(scenes.to_coco(), detections))
    assert len(detections) > 0


def test_mapped_scenes_have_their_boxes(make_cfg, scenes):
    from detectron2.data import DatasetCatalog

    from lowbit.detection.with_detectron2.catalog import Mapper

    cfg = make_cfg()
    records = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    for index in (0, 5):
        sample = Mapper(cfg, is_train=True)(records[index])
        assert torch.equal(sample["image"], scenes.images[index])
        assert torch.equal(sample["instances"].gt_boxes.tensor, scenes.boxes[index])
        assert torch.equal(sample["instances"].gt_classes, scenes.labels[index])
        assert "instances" not in Mapper(cfg, is_train=False)(records[index])


def test_gradient_clipping_works_with_the_transition_optimizer(make_cfg):
    """Detectron2 re-classes the optimizer; its step must still be the transition optimizer's."""
    from lowbit.detection.with_detectron2.build_detector import build_detector
    from lowbit.detection.with_detectron2.trainer import LowbitTrainer

    cfg = make_cfg("MODEL.QUANT.ENABLED", True, "MODEL.QUANT.POLICY", "tr")
    cfg.SOLVER.OPTIMIZER = "SGDT"
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    model = build_detector(cfg)
    images = [{"image": image} for image in torch.rand(2, 3, 64, 64)]
    quantize_detector(model, get_policy("tr"), Precision(4, 4), batches=[images])
    optimizer = LowbitTrainer.build_optimizer(cfg, model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    optimizer.step()
    norms = [p.grad.norm().item() for p in model.parameters() if p.requires_grad]
    assert max(norms) == pytest.approx(0.5, rel=1e-3)
    assert len(optimizer.rates()["running"]) == 11
    assert optimizer.rates()["target"] == pytest.approx(1e-3 * math.sqrt(4))


@pytest.mark.parametrize("name", ["fp", "lsq_w4a4", "sgdt_w4a4"])
def test_published_protocols_describe_a_detector_that_can_be_built(name):
    from detectron2.config import get_cfg

    from lowbit.detection.with_detectron2.build_detector import build_detector
    from lowbit.detection.with_detectron2.config import add_lowbit_config, quantization, solver

    cfg = get_cfg()
    add_lowbit_config(cfg)
    cfg.merge_from_file(str(CONFIGS / f"retinanet_R_18_FPN_90k_{name}.yaml"))
    cfg.MODEL.DEVICE, cfg.MODEL.LOWBIT.NORM = "cpu", "BN"
    model = build_detector(cfg)
    shapes = model.backbone.output_shape()
    assert [shapes[p].stride for p in cfg.MODEL.RETINANET.IN_FEATURES] == [8, 16, 32, 64, 128]
    sides = [area**0.5 for level in model.anchor_generator.cell_anchors for area in _areas(level)]
    assert sides[:3] == pytest.approx([32, 32, 32]) and sides[-1] == pytest.approx(812.7, rel=1e-3)
    assert solver(cfg).optimizer == ("sgdt" if name.startswith("sgdt") else "sgd")
    asked = quantization(cfg)
    assert (asked is None) == (name == "fp")
    if asked is not None:
        assert asked[1] == Precision(4, 4)


def _areas(anchors: torch.Tensor) -> list[float]:
    sides = anchors[:, 2:] - anchors[:, :2]
    return (sides[:, 0] * sides[:, 1]).tolist()
