"""Options of `lowbit-bench analyze`, and its examples."""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  # are SSQL's quantization and contrastive errors correlated? a minute on one CPU core
  lowbit-bench analyze correlation --config-file configs/pretrain/digits_ssql.yaml

  # the same for fewer epochs and with another seed, in a separate folder
  lowbit-bench analyze correlation --config-file configs/pretrain/digits_ssql.yaml \\
      --output-dir output/correlation_1 epochs 5 seed 1

  # how are the weights of that backbone distributed, compared with an untrained one?
  lowbit-bench pretrain --config-file configs/pretrain/digits_untrained.yaml
  lowbit-bench analyze weights output/digits_untrained/checkpoint.pth \\
      output/correlation_digits_ssql/checkpoint.pth

  # how does it separate the classes of the test images, in full precision and at two others?
  lowbit-bench analyze tsne output/correlation_digits_ssql/checkpoint.pth \\
      --dataset digits --precision 4w4a 2w2a

  # how often did quantized weights change while two jobs trained, with and without scheduling?
  lowbit-bench analyze transitions runs/1f0c2ab94d3e runs/83b7a6150c2d --output-dir output/sgdt

  # AP, losses and transition rates of detection jobs over their iterations
  lowbit-bench analyze detection output/lsq output/sgdt

  # what does a 2-bit weight quantizer do to normal weights, with two scales?
  lowbit-bench analyze quantizer --scale 0.3 0.2

  # and LSQ at 4 bits to a layer of a checkpoint, with the step that it starts with?
  lowbit-bench analyze quantizer output/digits_untrained/checkpoint.pth --layer layer1.0.conv1 \\
      --policy lsq --bits 4

exit code: 0 drawn, 1 a recipe, a file or the training failed, 2 invalid command line."""


def add_tsne(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dataset", required=True, help="image set")
    verb.add_argument(
        "--precision",
        nargs="+",
        default=[],
        help="in addition to full precision, such as 4w4a 2w2a",
    )
    verb.add_argument("--policy", default="ssql", help="quantization policy; default: ssql")
    verb.add_argument(
        "--images", type=int, default=5000, help="number of test images; default: up to 5000"
    )
    verb.add_argument("--image-size", type=int, help="image side, pixels; default: the images' own")
    verb.add_argument("--data-root", type=Path, help="folder of the sets; default: $LOWBIT_DATA")
    verb.add_argument("--device", default="auto", help="auto (cuda if available), cpu, cuda")
    verb.add_argument("--seed", type=int, default=0, help="seed for choosing images and for t-SNE")


def add_transitions(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "jobs", nargs="+", type=Path, metavar="JOB_FOLDER", help="qat jobs, finished or not"
    )
    verb.add_argument("--layer", help="draw only this quantized layer; default: all and their mean")
    verb.add_argument(
        "--epochs",
        nargs="+",
        type=int,
        default=[],
        help="epochs, from 0, whose latent weights are drawn; default: four from first to last",
    )


def add_quantizer(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="file whose layer is drawn; default: normal weights, as in the paper",
    )
    verb.add_argument("--layer", help="the checkpoint's layer")
    verb.add_argument("--architecture", help="network's name; default: as given in the file")
    verb.add_argument(
        "--policy", default="interval", help="whose weight quantizer is drawn; default: interval"
    )
    verb.add_argument("--bits", type=int, default=2, help="of the weights; default: 2")
    verb.add_argument(
        "--scale",
        nargs="+",
        type=float,
        default=[],
        help="scales s; default: the one that the quantizer starts with",
    )
    verb.add_argument("--sd", type=float, default=0.1, help="of the normal weights; default: 0.1")
    verb.add_argument("--seed", type=int, default=0, help="seed of the normal weights")
