"""Train or evaluate by a Detectron2 configuration, as Detectron2's own train_net.py does."""

import argparse

import torch
from detectron2.engine import default_setup, launch
from detectron2.utils import comm

from lowbit.detection.with_detectron2.build_detector import load_trained, save_trained
from lowbit.detection.with_detectron2.catalog import load_registered, register_named
from lowbit.detection.with_detectron2.config import read_config
from lowbit.detection.with_detectron2.hooks import plain_scores
from lowbit.detection.with_detectron2.trainer import LowbitTrainer


def train_config(args: argparse.Namespace) -> dict[str, float]:
    """Train or evaluate, with one process per GPU, and return the scores.

    Args:
        args: Detectron2's `config_file`, `opts`, `num_gpus`, `resume` and `eval_only`, and
            `output_dir`.

    Returns:
        Scores in percent by metric; empty if the evaluation ran in other processes.
    """
    if args.num_gpus is None:
        args.num_gpus = int(torch.cuda.is_available())
    results: dict[str, float] = {}
    launch(_run, args.num_gpus, dist_url="auto", args=(args, results))
    return results


def _run(args: argparse.Namespace, results: dict[str, float]) -> None:
    cfg = read_config(args.config_file, args.opts, processes=comm.get_world_size())
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    register_named(names, voc_base=cfg.DATASETS.VOC_BASE)
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    if args.output_dir is not None:
        cfg.OUTPUT_DIR = str(args.output_dir)
    cfg.freeze()
    load_registered(names)
    default_setup(cfg, args)
    if args.eval_only:
        results.update(plain_scores(LowbitTrainer.test(cfg, load_trained(cfg))))
        return
    trainer = LowbitTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()
    if comm.is_main_process():
        print(f"detector: {save_trained(cfg, trainer.checkpointer.model)}")
        results.update(plain_scores(getattr(trainer, "_last_eval_results", None) or {}))
