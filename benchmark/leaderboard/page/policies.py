"""What a policy fingerprint stands for, in words."""

import pandas as pd

from lowbit.benchmark.results.comparability import MEASURED
from lowbit.quant import QuantizerSpec, Rule, get_policy, list_policies


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
