"""Find a policy by what a recipe says: a name, a variation of a named one, or a whole one."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief, printable
from lowbit.quant.policies.named_policies import NAMED_POLICIES
from lowbit.quant.policies.policy import QuantizerSpec, QuantPolicy
from lowbit.quant.policies.rule import Rule


def list_policies() -> list[str]:
    """Return the names of the papers' policies."""
    return sorted(NAMED_POLICIES)


def get_policy(spec: "str | QuantPolicy | Mapping[str, Any]") -> QuantPolicy:
    """Return a policy by name, as a variation of a named one, or from its full dictionary.

    Args:
        spec: one of `list_policies`; {"base": name, field: value, ...} to change fields of one; or the
            dictionary `to_dict` returns. `ranges` may be among the fields: how activations' ranges
            are found, "minmax", "moving_average", "percentile", {"percentile": p} or "mse"
            (`lowbit.quant.quantizers.observers`).

    Raises:
        ValueError: unknown name, field, quantizer or rule.

    Example:
        >>> get_policy({"base": "lsq", "first": 8, "last": 8}).first
        Rule(weight=8, activation=8)
    """
    if isinstance(spec, QuantPolicy):
        return spec
    try:
        return _build(spec)
    except TypeError as error:  # a value of another type, or a missing one
        raise ValueError(
            f"{brief(spec)} is not a policy ({printable(str(error))}); nothing was quantized. Write the "
            "name of one, or {base: NAME, FIELD: VALUE, ...}, as in docs/extend.md."
        ) from error


def _build(spec: str | Mapping[str, Any]) -> QuantPolicy:
    if isinstance(spec, str):
        if spec not in NAMED_POLICIES:
            raise ValueError(
                f"there is no policy {brief(spec)}; nothing was quantized."
                f"{did_you_mean(spec, NAMED_POLICIES)} Known: {', '.join(sorted(NAMED_POLICIES))}."
            )
        return NAMED_POLICIES[spec]
    changes = dict(spec)
    base = changes.pop("base", None)
    ranges = changes.pop("ranges", None)
    known = {f.name for f in fields(QuantPolicy)} | {"ranges"}
    for key in changes:
        if key not in known:
            raise ValueError(
                f"a policy has no field {brief(key)}; nothing was quantized."
                f"{did_you_mean(key, known)} Known: {', '.join(sorted(known))}."
            )
    for side in ("weight", "activation"):
        if isinstance(changes.get(side), Mapping):
            changes[side] = QuantizerSpec(**changes[side])
    for place in ("first", "last"):
        if place in changes:
            changes[place] = Rule.parse(changes[place])
    if "rules" in changes:
        rules = changes["rules"]
        pairs = rules.items() if isinstance(rules, Mapping) else rules
        if not all(len(pair) == 2 for pair in pairs):
            raise TypeError("a rule is not a pair of a layer's name and its bits")
        changes["rules"] = tuple((pattern, Rule.parse(rule)) for pattern, rule in pairs)
    if base is not None:
        changes.setdefault("name", f"{base}-variant")
        policy = replace(get_policy(base), **changes)
    else:
        policy = QuantPolicy(**changes)
    return policy if ranges is None else _with_ranges(policy, ranges)


def _with_ranges(policy: QuantPolicy, ranges: str | Mapping[str, float]) -> QuantPolicy:
    """Return a policy whose activations' ranges are found as `ranges` says."""
    spec = policy.activation
    if spec.kind != "MinMax" or spec.options.get("range", "observed") != "observed":
        raise ValueError(
            f"ranges says how observed ranges are found, and the activations of policy {policy.name!r} "
            "have none; no policy was made. Use a variant of ptq or ssql, or omit it."
        )
    options = {k: v for k, v in spec.options.items() if k not in ("observer", "percentile")}
    if isinstance(ranges, Mapping):
        if set(ranges) != {"percentile"}:
            raise ValueError(
                f"ranges {brief(ranges)} is not a name or {{percentile: p}}; no policy was made. Write "
                "{percentile: 99.9}."
            )
        options |= {"observer": "percentile", "percentile": float(ranges["percentile"])}
    elif ranges != "minmax":  # the default
        options["observer"] = ranges
    spec = replace(spec, options=options)
    spec.build("activation")  # refuses unknown names and shares
    return replace(policy, activation=spec)
