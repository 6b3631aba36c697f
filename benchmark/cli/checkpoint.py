"""Inspect a checkpoint and whether it loads, or convert it for another library."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowbit.benchmark.cli import make_parser
from lowbit.common.text import brief, printable

EXAMPLES = """examples:
  # what is in this file, which network is it, is anything missing?
  lowbit-bench checkpoint inspect moco_v2_800ep_pretrain.pth.tar

  # convert its backbone for Detectron2, in the same folder
  lowbit-bench checkpoint convert moco_v2_800ep_pretrain.pth.tar --to detectron2

  # write its momentum encoder, to be scored like any other file
  lowbit-bench checkpoint convert moco_v2_800ep_pretrain.pth.tar --to safetensors \\
      --prefix state_dict.encoder_k --output momentum.safetensors

exit code: 0 the file loads or was written, 1 it does not or was not, 2 invalid command line."""
_LONGEST = 4096  # characters of a text in a file


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one subcommand; return 0 if the file loads or was written, else 1."""
    args = _parser(prog).parse_args(arguments)
    try:
        return args.verb(args)
    except (ValueError, OSError) as error:  # a file is refused, missing or already exists
        print(f"error: {error}", file=sys.stderr)
        return 1


def inspect(args: argparse.Namespace) -> int:
    """Print layout, network, matched and unused tensors; builds no network for use."""
    from lowbit.backbones.checkpoints.inspect import (
        inspect_checkpoint,  # here, so that --help needs no torch
    )

    found = inspect_checkpoint(args.file, args.architecture, prefix=args.prefix)
    if args.json:
        print(json.dumps(found, indent=2))
        return 0 if found["loads"] else 1
    print(f"file          {printable(found['path'], _LONGEST)} ({found['size'] / 2**20:.1f} MiB)")
    print(f"sha256        {found['sha256']}")
    print(f"layout        {printable(found['layout'])}")
    if found["architecture"] is None:
        print("architecture  unknown")
    else:
        _print_match(found)
    print(f"unused        {_groups(found['unused'])}")
    print(f"batch norm    {found['batch_norm']}")
    for key, value in found["meta"].items():
        print(f"meta          {printable(key)}: {printable(str(value), _LONGEST)}")
    for warning in found["warnings"]:
        print(f"warning       {printable(warning, _LONGEST)}")
    print(f"loads         {'yes' if found['loads'] else 'no: ' + found['refusal']}")
    return 0 if found["loads"] else 1


def _print_match(found: dict[str, Any]) -> None:
    whole = not any(found[word] for word in ("missing", "mismatched", "extra", "unfit"))
    how = (
        (" (inferred from its shapes)" if whole else " (closest match)") if found["guessed"] else ""
    )
    print(f"architecture  {found['architecture']}{how}")
    share = f"{100 * found['share']:.1f} % of parameters"
    print(f"matched       {found['matched']}/{found['total']} tensors, {share}")
    if found["prefix"]:
        print(f"taken from    {brief(found['prefix'])}")
    if found["copies"]:
        places = [shlex.quote(printable(place)) for place in found["copies"]]
        print(f"other copies  {_first(places)}: take one by --prefix {places[0]}")
    for word in ("missing", "mismatched", "extra"):
        if found[word]:
            print(f"{word:<13} {_first([printable(name) for name in found[word]])}")
    if found["unfit"]:
        kinds = [f"{printable(name)} ({kind})" for name, kind in found["unfit"].items()]
        print(f"no weights    {_first(kinds)}")


def _first(texts: Sequence[str], limit: int = 5) -> str:
    return ", ".join(texts[:limit]) + (" ..." if texts[limit:] else "")


def convert(args: argparse.Namespace) -> int:
    """Write the backbone for torchvision, timm or Detectron2, or as safetensors."""
    from lowbit.backbones.checkpoints.export import convert as write_converted

    done = write_converted(
        args.file,
        args.to,
        output=args.output,
        architecture=args.architecture,
        prefix=args.prefix,
        overwrite=args.overwrite,
    )
    print(done.report)
    print(f"wrote {done.path} (sha256 {done.sha256}); load it with\n\n{done.usage}")
    return 0


def _groups(unused: dict[str, int], limit: int = 8) -> str:
    groups = [f"{printable(prefix)} ({count})" for prefix, count in unused.items()]
    rest = [f"{len(groups) - limit} more"] if len(groups) > limit else []
    return ", ".join(groups[:limit] + rest) or "none"


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = make_parser(__doc__, EXAMPLES, prog)
    verbs = parser.add_subparsers(required=True, metavar="inspect|convert")
    for function in (inspect, convert):
        word = function.__name__
        verb = verbs.add_parser(word, help=function.__doc__, description=function.__doc__)
        verb.add_argument("file", type=Path, metavar="FILE", help="checkpoint")
        verb.add_argument(
            "--architecture", help="network name; default: as given by the file or its shapes"
        )
        verb.add_argument(
            "--prefix",
            help="which copy of the network to take, such as state_dict.encoder_k; default: the "
            "online network's",
        )
        verb.set_defaults(verb=function)
        if function is inspect:
            verb.add_argument("--json", action="store_true", help="print JSON")
            continue
        verb.add_argument(
            "--to", required=True, choices=("torchvision", "timm", "detectron2", "safetensors")
        )
        verb.add_argument(
            "--output",
            type=Path,
            help="new file; default: beside the old one, named after the target",
        )
        verb.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser
