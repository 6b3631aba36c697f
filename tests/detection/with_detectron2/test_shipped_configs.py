"""The configurations that ship: each makes sense, says what it is, and asks for what its header says."""

from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[3] / "configs" / "detection" / "detectron2"
FILES = sorted(file for file in CONFIGS.glob("*.yaml") if not file.stem.startswith("Base"))

QUANTIZED = ("MODEL.QUANT.ENABLED", True)

pytestmark = pytest.mark.detectron2


@pytest.fixture(autouse=True, scope="module")
def detectron2():
    from lowbit.detection.with_detectron2.install import import_detectron2

    import_detectron2()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_makes_sense_and_says_what_it_is(file):
    from lowbit.detection.with_detectron2.config import quantization, read_config, solver

    cfg = read_config(file)
    header = file.read_text()
    assert all(word in header for word in ("# Paper", "# Command", "# Published", "# Cost"))
    assert f"configs/detection/detectron2/{file.name}" in header
    asked = quantization(cfg)
    weights, _, activations = file.stem.rpartition("_")[2].partition("a")
    if weights[:1] == "w":
        assert str(asked[1]) == f"{weights[1:]}w{activations}a" and str(asked[1]) in header
        assert "MODEL.LOWBIT.DETECTOR" in header
    assert ("sgdt" in file.stem) == (solver(cfg).optimizer == "sgdt")
    depth = next((part for part in file.stem.split("_") if part in ("18", "34", "50")), None)
    assert depth is None or f"resnet{depth}" == cfg.MODEL.LOWBIT.ARCHITECTURE


def test_every_low_bit_configuration_has_the_detector_it_starts_from():
    names = {file.stem for file in FILES}
    for name in names:
        stem, _, bits = name.rpartition("_")
        if bits.startswith("w"):
            assert f"{stem.rpartition('_')[0]}_fp" in names


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (("SOLVER.MAX_ITER",), "are 1 words"),
        ((1, 2), "1 is overridden, which is no key"),
        (("SOLVER.BASE_LR", "1e999"), "SOLVER.BASE_LR is inf"),
        (("SOLVER.STEPS", "(1, -1e999)"), "SOLVER.STEPS is -inf"),
        (("SOLVER.BASE_LR", True), "does not fit Detectron2's configuration"),
        (("SOLVER.SCALE_LR_FACTOR", True), "SOLVER.SCALE_LR_FACTOR is True"),
        (("DATASETS.VOC_BASE", True), "DATASETS.VOC_BASE is True"),
        (("SOLVER.BASE_LR.X", 1), "does not fit Detectron2's configuration"),
        (("SOLVER.BASE_LR", "1" * 20_000), "has 20,000 characters"),
    ],
)
def test_overrides_that_are_none_are_refused(opts, told):
    from lowbit.detection.with_detectron2.config import read_config

    with pytest.raises(ValueError, match="nothing was trained") as caught:
        read_config(CONFIGS / "retinanet_R_18_FPN_90k_fp.yaml", opts)
    assert told in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("VERSION: 2\nSEED: !!python/object/apply:builtins.len ['ab']\n", "c.yaml, line 2, "),
        ("VERSION: 1\n", "has VERSION 1, and 2 is read"),
        ("_BASE_: c.yaml\n", "form a circle"),
        ("_BASE_: [a.yaml]\n", "line 1: _BASE_ must name one file"),
        ("SOLVER: {MAX_ITER: 1:30}\n", "c.yaml, line 1, "),
        ("SOLVER: {1: 2}\n", "is not text"),
        ("SOLVER: 3\n", "does not fit Detectron2's configuration"),
    ],
)
def test_a_file_is_read_as_recipes_are(tmp_path, text, told):
    from lowbit.detection.with_detectron2.config import read_config

    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError) as caught:
        read_config(tmp_path / "c.yaml")
    assert told in str(caught.value)


def test_a_shipped_file_is_what_detectron2_reads():
    from lowbit.detection.with_detectron2.config import default_config, read_config

    for file in FILES:
        theirs = default_config()
        theirs.merge_from_file(str(file), allow_unsafe=False)
        assert repr(read_config(file, processes=2)) == repr(theirs)


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (("MODEL.RESNETS.DEPTH", 101), "MODEL.LOWBIT.ARCHITECTURE"),
        (("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"), "use one of build_lowbit_backbone"),
        (("MODEL.QUANT.PRECISION", "3w3a"), "set MODEL.QUANT.ENABLED True"),
        (("SOLVER.LAMBDA", 0.5), "follows no target rate"),
        (("SOLVER.OPTIMIZER", "ADAMT"), "or SOLVER.OPTIMIZER ADAMW"),
        (("SOLVER.TARGET_SCHEDULE", "cosin"), "Use one of cosine, linear, step, constant"),
        (("MODEL.LOWBIT.RANDOM", True, "MODEL.LOWBIT.CHECKPOINT", "x"), "Leave one of them out"),
        (("SOLVER.OSCILLATION", "freezing"), "but no layer is quantized"),
        (
            ("SOLVER.OSCILLATION", "freezing", "SOLVER.OPTIMIZER", "SGDT", *QUANTIZED),
            "SGDT schedules transitions, of which it is a rival",
        ),
        (
            ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norms"),
            "Use one of value, norm, full_model",
        ),
    ],
)
def test_keys_that_do_nothing_or_contradict_are_refused(opts, told):
    from lowbit.detection.with_detectron2.config import read_config

    with pytest.raises(ValueError) as caught:
        read_config(CONFIGS / "retinanet_R_18_FPN_90k_fp.yaml", opts)
    assert told in str(caught.value)
    assert any(f"{n} was" in str(caught.value) for n in ("nothing", "Nothing", "no detector"))


@pytest.mark.parametrize(
    ("file", "opts", "told"),
    [
        (
            "retinanet_R_18_FPN_90k_fp",
            ("INPUT.MOSAIC", 0.5),
            "INPUT.MOSAIC is set, which only YOLOv4",
        ),
        ("retinanet_R_18_FPN_90k_fp", ("MODEL.YOLOV4.KMEANS", True), "MODEL.YOLOV4.KMEANS is set"),
        ("retinanet_R_18_FPN_90k_fp", ("MODEL.META_ARCHITECTURE", "YOLOv4"), "belong together"),
        ("yolov4_R_18_VOC_cq_fp", ("MODEL.BACKBONE.NAME", "build_lowbit_backbone"), "set both"),
        ("yolov4_R_18_VOC_cq_fp", ("MODEL.LOWBIT.OUT_FEATURES", ["res4", "res5"]), "three levels"),
        ("yolov4_R_18_VOC_cq_fp", ("MODEL.YOLOV4.ANCHORS", [[1, 2]]), "Give nine [width, height]"),
        ("yolov4_R_18_VOC_cq_fp", ("MODEL.YOLOV4.ANCHORS", [[-1, 2]] * 9), "above 0"),
        ("yolov4_R_18_VOC_cq_fp", ("INPUT.MOSAIC", 1.5), "A share is in 0..1"),
        ("yolov4_R_18_VOC_cq_fp", ("INPUT.MIN_SIZE_TRAIN", [0]), "a mosaic's side"),
    ],
)
def test_yolov4_has_its_keys_and_no_other_detector_has(file, opts, told):
    from lowbit.detection.with_detectron2.config import read_config

    with pytest.raises(ValueError) as caught:
        read_config(CONFIGS / f"{file}.yaml", opts)
    assert told in str(caught.value)
    assert any(f"{n} was" in str(caught.value) for n in ("nothing", "no detector"))


def test_nine_anchors_can_be_given():
    from lowbit.detection.with_detectron2.build_detector import build_detector
    from lowbit.detection.with_detectron2.config import read_config

    shapes = [[10 * i, 9.5] for i in range(1, 10)]
    opts = ("MODEL.YOLOV4.ANCHORS", shapes, "MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", 8)
    model = build_detector(read_config(CONFIGS / "yolov4_R_18_VOC_cq_fp.yaml", opts))
    assert model.head.anchors.tolist() == shapes


def test_what_is_done_about_oscillation_reaches_the_solver():
    from lowbit.detection.with_detectron2.config import read_config, solver

    file = CONFIGS / "retinanet_R_18_FPN_90k_dampening_w3a3.yaml"
    assert solver(read_config(file)).oscillation.label == "dampening"
    wanted = '{"method": "freezing", "threshold": [0.2, 0.05]}'
    found = solver(read_config(file, ("SOLVER.OSCILLATION", repr(wanted)))).oscillation  # as text
    assert (found.method, found.threshold) == ("freezing", (0.2, 0.05))
    with pytest.raises(ValueError, match=r"SOLVER\.OSCILLATION is .*which is not JSON"):
        solver(read_config(file, ("SOLVER.OSCILLATION", "{bad")))


def test_a_target_that_falls_in_steps_reaches_the_solver():
    from lowbit.detection.with_detectron2.config import read_config, solver

    opts = ("SOLVER.TARGET_SCHEDULE", "step", "SOLVER.TARGET_STEPS", (30000, 60000))
    numbers = solver(read_config(CONFIGS / "retinanet_R_18_FPN_90k_sgdt_w4a4.yaml", opts))
    assert (numbers.target_schedule, numbers.target_milestones) == ("step", (30000, 60000))
    assert numbers.target_factor == 0.2


def test_a_single_process_has_nothing_to_synchronize():
    from lowbit.detection.with_detectron2.config import read_config

    file = CONFIGS / "mask_rcnn_R_50_FPN_1x_fp.yaml"
    assert read_config(file).MODEL.LOWBIT.NORM == "BN"
    assert read_config(file, processes=8).MODEL.LOWBIT.NORM == "SyncBN"


@pytest.mark.parametrize(
    "name", ["retinanet_R_18_FPN_90k_sgdt_w3a3", "mask_rcnn_R_50_C4_1x_lsq_w2a4"]
)
def test_a_published_detector_can_be_built_and_quantized(name):
    """With narrow pyramids and few classes, which no name depends on."""
    from lowbit.detection.detector.quantize import quantize_layers
    from lowbit.detection.with_detectron2.build_detector import build_detector
    from lowbit.detection.with_detectron2.config import quantization, read_config
    from lowbit.quant import quantized_layers

    small = ("MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", 8)
    cfg = read_config(CONFIGS / f"{name}.yaml", small)
    model = build_detector(cfg)
    quantize_layers(model, *quantization(cfg), scope=cfg.MODEL.QUANT.SCOPE)
    layers = [n for n, m in quantized_layers(model).items() if m.w_quant.bits < 32]
    if name.startswith("retinanet"):
        # 19 convolutions of the body but the stem, 3 laterals, P6 and P7, and 4 of each subnet
        assert len(layers) == 19 + 3 + 2 + 8
        assert not any(
            word in n for n in layers for word in ("fpn_output", "cls_score", "bbox_pred")
        )
    else:
        assert len(layers) == 42  # of res2, res3 and res4; res5 belongs to the head
        assert not any("roi_heads" in n for n in layers)
