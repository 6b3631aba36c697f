"""The papers to cite for a number, and the policy of a fingerprint."""

import pandas as pd

from lowbit.benchmark.results.comparability import MEASURED
from lowbit.quant import QuantizerSpec, Rule, get_policy, list_policies

SUITE = """@software{lowbit-bench,
  title   = {lowbit-bench: any backbone checkpoint, every bit-width, every task, one board},
  version = {0.1.0}
}"""

_SIMSIAM = """@inproceedings{chen2021simsiam,
  title     = {Exploring Simple Siamese Representation Learning},
  author    = {Chen, Xinlei and He, Kaiming},
  booktitle = {CVPR},
  year      = {2021}
}"""
_SIMCLR = """@inproceedings{chen2020simclr,
  title     = {A Simple Framework for Contrastive Learning of Visual Representations},
  author    = {Chen, Ting and Kornblith, Simon and Norouzi, Mohammad and Hinton, Geoffrey},
  booktitle = {ICML},
  year      = {2020}
}"""
_BYOL = """@inproceedings{grill2020byol,
  title     = {Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning},
  author    = {Grill, Jean-Bastien and Strub, Florian and Altch{\\'e}, Florent and others},
  booktitle = {NeurIPS},
  year      = {2020}
}"""
_MOCO_V2 = """@article{chen2020mocov2,
  title   = {Improved Baselines with Momentum Contrastive Learning},
  author  = {Chen, Xinlei and Fan, Haoqi and Girshick, Ross and He, Kaiming},
  journal = {arXiv preprint arXiv:2003.04297},
  year    = {2020}
}"""
_MOCO_V3 = """@inproceedings{chen2021mocov3,
  title     = {An Empirical Study of Training Self-Supervised Vision Transformers},
  author    = {Chen, Xinlei and Xie, Saining and He, Kaiming},
  booktitle = {ICCV},
  year      = {2021}
}"""
_SSQL = """@inproceedings{cao2022ssql,
  title     = {Synergistic Self-supervised and Quantization Learning},
  author    = {Cao, Yun-Hao and Sun, Peiqin and Huang, Yechang and Wu, Jianxin and Zhou, Shuchang},
  booktitle = {ECCV},
  year      = {2022}
}"""
_CQ = """@inproceedings{fu2022contrastivequant,
  title     = {Contrastive Quant: Quantization Makes Stronger Contrastive Learning},
  author    = {Fu, Yonggan and Yu, Qixuan and Li, Meng and Ouyang, Xu and Chandra, Vikas and Lin, Yingyan},
  booktitle = {DAC},
  year      = {2022}
}"""
_LSQ = """@inproceedings{esser2020lsq,
  title     = {Learned Step Size Quantization},
  author    = {Esser, Steven K. and McKinstry, Jeffrey L. and Bablani, Deepika and
               Appuswamy, Rathinakumar and Modha, Dharmendra S.},
  booktitle = {ICLR},
  year      = {2020}
}"""
_TR = """@article{lee2024transitions,
  title   = {Scheduling Weight Transitions for Quantization-Aware Training},
  author  = {Lee, Junghyup and Jeon, Jeimin and Kim, Dohyung and Ham, Bumsub},
  journal = {arXiv preprint arXiv:2404.19248},
  year    = {2024}
}"""
_COQUANT = """@article{sun2021coquant,
  title   = {Improved Techniques for Quantizing Deep Networks with Adaptive Bit-Widths},
  author  = {Sun, Ximeng and Panda, Rameswar and Chen, Chun-Fu and Wang, Naigang and Pan, Bowen and
             Oliva, Aude and Feris, Rogerio and Saenko, Kate},
  journal = {arXiv preprint arXiv:2103.01435},
  year    = {2021}
}"""

_METHODS = {  # what a method's name begins with, or has behind a plus
    "SimSiam": _SIMSIAM,
    "SimCLR": _SIMCLR,
    "BYOL": _BYOL,
    "MoCov2": _MOCO_V2,
    "MoCov3": _MOCO_V3,
    "SSQL": _SSQL,
    "CQ": _CQ,
}
_PUBLISHED_WITH = {"SSQL": "SimSiam", "CQ": "SimCLR"}  # a pairing named alone
_POLICIES = {"ssql": _SSQL, "cq": _CQ, "lsq": _LSQ, "tr": _TR, "coquant": _COQUANT}


def citations(methods: set[str], policies: set[str]) -> list[str]:
    """Return BibTeX entries of the suite and of what made these numbers, each once.

    Example:
        >>> [entry.split("{")[1].split(",")[0] for entry in citations({"MoCov2+SSQL"}, {"lsq"})]
        ['lowbit-bench', 'chen2020mocov2', 'cao2022ssql', 'esser2020lsq']
    """
    found = [SUITE]
    for method in sorted(methods):
        parts = method.split("+")
        known = [key for part in parts for key in _METHODS if part.startswith(key)]
        if known and known[0] in _PUBLISHED_WITH:
            known.insert(0, _PUBLISHED_WITH[known[0]])
        found += [_METHODS[key] for key in known]
    found += [_POLICIES[policy] for policy in sorted(policies) if policy in _POLICIES]
    return list(dict.fromkeys(found))


def describe_policies(frame: pd.DataFrame) -> list[dict[str, str]]:
    """Return every policy measured numbers were taken under, described where it has a name of ours.

    A variation of a named policy has another fingerprint; its fields are in the recipes of its jobs.
    """
    measured = frame[(frame["source"] == MEASURED) & (frame["policy_fingerprint"] != "-")]
    found = sorted(set(zip(measured["policy"], measured["policy_fingerprint"], strict=True)))
    return [{"name": n, "fingerprint": f, "text": _describe(n, f)} for n, f in found]


def _describe(name: str, fingerprint: str) -> str:
    policy = get_policy(name) if name in list_policies() else None
    if policy is None or policy.fingerprint != fingerprint:
        return "not a named policy as it stands: its fields are in recipe.yaml of its jobs"
    side = "inputs of layers" if policy.activation_side == "input" else "outputs of activations"
    return (
        f"weights {_quantizer(policy.weight)}; {side} {_quantizer(policy.activation)}; "
        f"first layer {_rule(policy.first)}; last layer {_rule(policy.last)}"
    )


def _quantizer(spec: QuantizerSpec) -> str:
    scheme = spec.options.get("scheme")
    kind = f"{spec.kind} ({scheme.replace('_', ' ')})" if scheme else spec.kind
    return f"{kind} per {spec.granularity}"


def _rule(rule: Rule) -> str:
    names = {"target": "as the rest", "fp": "full precision"}
    if rule.weight == rule.activation:
        return names.get(rule.weight, f"{rule.weight} bits")
    weight, activation = (
        names.get(bits, f"{bits} bits") for bits in (rule.weight, rule.activation)
    )
    return f"weights {weight}, activations {activation}"
