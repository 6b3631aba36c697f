"""A `DefaultTrainer` for quantized detectors that loads strictly and resumes exactly.

Needs Detectron2. The configuration is that of `lowbit.detection.with_detectron2.config`.
"""

import os
import time
import weakref
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
)
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    PascalVOCDetectionEvaluator,
)
from detectron2.utils import comm
from torch import nn
from torch.utils.data import DataLoader

from lowbit.backbones.checkpoints.file_formats.checked_load import load_checked
from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, RefusedError
from lowbit.common.atomic_file import atomic
from lowbit.common.preemption import obey_parent_alone
from lowbit.detection.detector.detector_file import write_atomically
from lowbit.detection.detector.initial_weights import initialize
from lowbit.detection.detector.quantize import quantize_detector
from lowbit.detection.solver import build_optimizer
from lowbit.detection.with_detectron2.build_detector import (
    build_detector,
    calibration_batches,
    start_from,
)
from lowbit.detection.with_detectron2.catalog import (
    EVALUATOR,
    KeepDetections,
    Mapper,
    SetEvaluator,
    registered_set,
)
from lowbit.detection.with_detectron2.config import check, quantization, solver
from lowbit.detection.with_detectron2.hooks import (
    Evaluation,
    MetricsFile,
    ResumeState,
    SaveAndStop,
)
from lowbit.detection.yolov4.record_mapper import RecordMapper, clustered_anchors
from lowbit.quant import require_asked, reuse_weights
from lowbit.training.divergence import diverged_at_iteration
from lowbit.training.seeding import ResumableSampler
from lowbit.training.stopping import stop_request


class BFloat16Trainer(SimpleTrainer):
    """Detectron2's plain iteration with the forward pass in bfloat16 on the CPU.

    bfloat16 needs no loss scale; Detectron2's own mixed precision is for GPUs only.
    """

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast("cpu", torch.bfloat16):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.after_backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()


class StrictCheckpointer(DetectionCheckpointer):
    """Save atomically; refuse a training state unless every tensor fits the model."""

    def save(self, name: str, **kwargs: Any) -> None:
        """Write model and trainer to `name`.pth, then point `last_checkpoint` at it."""
        if not self.save_dir or not self.save_to_disk:
            return
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        file = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", file)
        write_atomically(file, {"model": self.model.state_dict(), **parts, **kwargs})
        self.tag_last_checkpoint(file.name)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read what `save` wrote, without running code in it: Detectron2 unpickles a .pkl."""
        try:
            return load_checked(filename)
        except (DamagedError, RefusedError) as error:
            raise ValueError(
                f"the training state {filename} cannot be read ({error}); the run was not resumed. "
                "Name an earlier one in last_checkpoint, or choose another OUTPUT_DIR to start over."
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Record the newest state atomically."""
        with atomic(Path(self.save_dir) / "last_checkpoint") as file:
            file.write(last_filename_basename.encode())

    def _log_incompatible_keys(self, incompatible) -> None:
        wrong = [*incompatible.missing_keys, *incompatible.unexpected_keys]
        wrong += [name for name, *_ in incompatible.incorrect_shapes]
        if wrong:
            raise ValueError(
                f"the training state in {self.save_dir} does not fit this model in {len(wrong)} "
                f"tensors (such as {wrong[0]}); the run was not resumed. Resume with the configuration "
                "it was started with, or choose another OUTPUT_DIR."
            )


class LowbitTrainer(DefaultTrainer):
    """Detectron2's default trainer, for our backbones, quantization, optimizers and exact resume.

    Features:
        strict loading of a backbone or a detector: MODEL.LOWBIT.CHECKPOINT, MODEL.LOWBIT.DETECTOR
        quantization and calibration before the optimizer is built: MODEL.QUANT.ENABLED
        SGD, AdamW or transition-rate scheduling: SOLVER.OPTIMIZER
        clipping of values, parameters or the whole model: SOLVER.CLIP_GRADIENTS
        mixed precision, float16 on a GPU and bfloat16 on the CPU: SOLVER.AMP.ENABLED
        evaluation during training, written to metrics.jsonl: TEST.EVAL_PERIOD, TEST.EVAL_AT
        batch norm statistics recomputed before each evaluation: TEST.PRECISE_BN.ENABLED
        a resumed run equals an uninterrupted one bit for bit: SEED >= 0, DATALOADER.NUM_WORKERS 0,
            DATALOADER.ASPECT_RATIO_GROUPING False
    """

    def __init__(self, cfg) -> None:
        """Build what a training needs, as DefaultTrainer does, on one or many GPUs or CPUs."""
        TrainerBase.__init__(self)
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        on_cpu = cfg.MODEL.DEVICE == "cpu"
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        devices = {"device_ids": None} if on_cpu else {}  # else the rank's device
        model = create_ddp_model(model, broadcast_buffers=False, **devices)
        if not cfg.SOLVER.AMP.ENABLED:
            self._trainer = SimpleTrainer(model, loader, optimizer)
        elif on_cpu:
            self._trainer = BFloat16Trainer(model, loader, optimizer)
        else:
            scaler = torch.amp.GradScaler("cuda")
            self._trainer = AMPTrainer(model, loader, optimizer, grad_scaler=scaler)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = StrictCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg) -> nn.Module:
        """Build the detector, load its backbone or detector file, quantize, calibrate.

        This happens before DistributedDataParallel and the optimizer see the parameters. Every rank
        calibrates on the same images and gets the same scales.
        """
        if cfg.MODEL.WEIGHTS:
            raise ValueError(
                f"MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS}; nothing was loaded. Detectron2 would load "
                "what matches and leave the rest random: name a backbone file under "
                "MODEL.LOWBIT.CHECKPOINT, or a detector.pth under MODEL.LOWBIT.DETECTOR."
            )
        check(cfg)
        model, start = build_detector(cfg), start_from(cfg)
        if cfg.MODEL.YOLOV4.KMEANS and start.state is None:  # else the detector file has them
            model.head.anchors.copy_(clustered_anchors(cfg, _training_records(cfg)))
        initialize(model, start)
        asked = quantization(cfg)
        if asked is not None:
            policy, precision = asked
            quantize_detector(
                model,
                policy,
                precision,
                batches=calibration_batches(cfg),
                scope=cfg.MODEL.QUANT.SCOPE,
            )
        return model

    @classmethod
    def build_optimizer(cls, cfg, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer over our param groups."""
        return build_optimizer(model, solver(cfg))

    @classmethod
    def build_train_loader(cls, cfg, start: int = 0):
        """Build the training loader; its image order depends on SEED and starts at image `start`."""
        dicts = _training_records(cfg)
        yolov4 = cfg.MODEL.META_ARCHITECTURE == "YOLOv4"
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        sampler = ResumableSampler(
            len(dicts),
            seed=seed,
            start=start,
            rank=comm.get_rank(),
            world=comm.get_world_size(),
        )
        loader = build_detection_train_loader(
            dicts,
            mapper=RecordMapper(cfg, dicts) if yolov4 else Mapper(cfg, is_train=True),
            sampler=sampler,
            total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
            aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            seed=seed,  # otherwise the loader draws its workers' seed from the global state
        )
        return _with_steady_workers(loader)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name: str):
        """Build the loader of a test set, of files or of scenes."""
        mapper = Mapper(cfg, is_train=False)
        return _with_steady_workers(build_detection_test_loader(cfg, dataset_name, mapper=mapper))

    @classmethod
    def build_evaluator(cls, cfg, dataset_name: str) -> DatasetEvaluator:
        """Choose the evaluator by the data set's `evaluator_type`."""
        metadata = MetadataCatalog.get(dataset_name)
        kind = metadata.get("evaluator_type", "coco")
        if kind == EVALUATOR:
            return SetEvaluator(metadata.detection_set(), cfg.OUTPUT_DIR)
        if kind == "pascal_voc":
            kept = KeepDetections(registered_set(dataset_name), cfg.OUTPUT_DIR)
            return DatasetEvaluators([PascalVOCDetectionEvaluator(dataset_name), kept])
        return COCOEvaluator(dataset_name, output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"))

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """Evaluate the model; a quantizer that was never asked is an error."""
        with require_asked(model):
            return super().test(cfg, model, evaluators)

    def build_hooks(self) -> list:
        """Add our hooks before Detectron2's, so that the learning rate is recorded before it changes."""
        ours = [ResumeState(self.cfg.SEED)]
        if comm.is_main_process():
            ours.append(MetricsFile(self.cfg.OUTPUT_DIR, every=self.cfg.LOWBIT_LOG_PERIOD))
        evaluation = Evaluation(
            self.evaluate,
            self.cfg.OUTPUT_DIR,
            every=self.cfg.TEST.EVAL_PERIOD,
            at=self.cfg.TEST.EVAL_AT,
            at_end=bool(self.cfg.DATASETS.TEST),
        )
        theirs = super().build_hooks()
        hooks = ours + [evaluation if isinstance(hook, EvalHook) else hook for hook in theirs]
        return [*hooks, SaveAndStop(self.checkpointer)]

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Evaluate on DATASETS.TEST, on every rank; return Detectron2's nested results."""
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the last state in OUTPUT_DIR, if requested and there is one."""
        if resume and self.checkpointer.has_checkpoint():
            super().resume_or_load(resume)
            position = self.start_iter * self.cfg.SOLVER.IMS_PER_BATCH
            self._trainer.reset_data_loader(lambda: self.build_train_loader(self.cfg, position))

    def train_rest(self) -> bool:
        """Train what is left, if anything; return whether there was anything.

        If a process was killed or stopped between the last two states, the one that every training ends
        with is written now.
        """
        if self.start_iter < self.max_iter:
            self.train()
            return True
        if Path(self.checkpointer.get_checkpoint_file()).name != "model_final.pth":
            self.checkpointer.save("model_final", iteration=self.iter)
        return False

    def run_step(self) -> None:
        """Run one iteration; each weight is quantized once, however many levels its head runs on."""
        with reuse_weights(self.model):
            super().run_step()

    def train(self):
        """Train; a signal ends the training after saving its state.

        Raises:
            FloatingPointError: the loss became NaN or infinite.
            Preempted: a signal arrived; the state was saved after the current iteration.
        """
        try:
            with stop_request() as self.stop:
                return super().train()
        except FloatingPointError as error:
            period = self.cfg.SOLVER.CHECKPOINT_PERIOD
            raise diverged_at_iteration(
                self.iter + 1,
                " ".join(str(error).split()),
                lr=self.cfg.SOLVER.BASE_LR,
                good=max(self.start_iter, self.iter // period * period),
            ) from error


def _training_records(cfg) -> list[dict[str, Any]]:
    return get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )


def _with_steady_workers(loader):
    """Keep the workers of a loader running when the whole job receives a signal."""
    inner = loader if isinstance(loader, DataLoader) else loader.dataset  # grouped by aspect ratio
    first = inner.worker_init_fn

    def start(worker: int) -> None:
        if first is not None:
            first(worker)
        obey_parent_alone()

    inner.worker_init_fn = start
    return loader
