import json

import pytest

from lowbit.quant import QUANTIZERS, QuantPolicy, Rule, get_policy, list_policies


def test_named_policies():
    assert list_policies() == sorted(
        [
            "any-precision",
            "coquant",
            "cq",
            "dorefa",
            "ewgs",
            "interval",
            "interval-binary",
            "lsq",
            "lsq-int8",
            "lsqplus",
            "pact",
            "ptq",
            "reactnet",
            "ssql",
            "ssql-int8",
            "tr",
        ]
    )
    ssql = get_policy("ssql")
    assert ssql.activation_side == "output" and ssql.first == Rule(8, 8)
    assert ssql.rule("projector.0", first=False, last=False) == Rule(8, "fp")
    assert get_policy("tr").weight.options["learn_scale"] is False


@pytest.mark.parametrize("name", list_policies())
def test_round_trips_through_json(name):
    policy = get_policy(name)
    again = get_policy(json.loads(json.dumps(policy.to_dict())))
    assert again == policy and again.fingerprint == policy.fingerprint


def test_a_quantizers_version_changes_the_fingerprints_of_its_policies(monkeypatch):
    before = {name: get_policy(name).fingerprint for name in list_policies()}
    monkeypatch.setattr(QUANTIZERS["PACT"], "version", 7)
    changed = {n for n in list_policies() if get_policy(n).fingerprint != before[n]}
    assert changed == {"pact", "coquant"}


def test_tr_freezes_weight_scales_and_interval_learns_them():
    assert get_policy("tr").weight.options == {"learn_scale": False}
    learned = {"base": "tr", "weight": {"kind": "Interval"}}
    assert get_policy(learned).fingerprint == get_policy("interval").fingerprint


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        *[
            (name, Rule("fp", "fp"), Rule("fp", "fp"))
            for name in ("pact", "dorefa", "ewgs", "tr", "interval")
        ],
        ("interval-binary", Rule("fp", "fp"), Rule("fp", "fp")),
        ("reactnet", Rule("fp", "fp"), Rule("fp", "fp")),
        ("lsqplus", Rule(8, 8), Rule(8, 8)),
        ("coquant", Rule(8, "fp"), Rule(8, 8)),
    ],
)
def test_first_and_last_layers_are_as_in_the_papers(name, first, last):
    policy = get_policy(name)
    assert policy.rule("conv1", first=True, last=False) == first
    assert policy.rule("fc", first=False, last=True) == last
    assert policy.rule("layer1.0.conv1", first=False, last=False) == Rule()


def test_reactnets_shortcuts_are_never_quantized():
    policy = get_policy("reactnet")
    assert policy.rule("layer2.0.downsample.1", first=False, last=False) == Rule("fp", "fp")


def test_fingerprint_sees_every_field_but_the_name():
    base = get_policy("lsq")
    prints = {
        get_policy({"base": "lsq", **change}).fingerprint
        for change in (
            {"first": 8},
            {"last": 8},
            {"activation_side": "output"},
            {"rules": {"layer1.*": 2}},
            {"weight": {"kind": "LSQ", "granularity": "channel"}},
            {"activation": {"kind": "MinMax"}},
        )
    }
    assert len(prints | {base.fingerprint}) == 7
    assert get_policy({"base": "lsq", "name": "mine"}).fingerprint == base.fingerprint


@pytest.mark.parametrize(
    "ranges, options",
    [
        ("minmax", {}),
        ("moving_average", {"observer": "moving_average"}),
        ("percentile", {"observer": "percentile"}),
        ({"percentile": 99}, {"observer": "percentile", "percentile": 99.0}),
        ("mse", {"observer": "mse"}),
    ],
)
@pytest.mark.parametrize("base", ["ptq", "ssql"])
def test_ranges_by_name_are_the_activation_quantizers_options(base, ranges, options):
    named = get_policy({"base": base, "ranges": ranges})
    spelled = {"scheme": "affine", "range": "observed", **options}
    activation = {"kind": "MinMax", "options": spelled}
    assert named.fingerprint == get_policy({"base": base, "activation": activation}).fingerprint
    assert get_policy(named.to_dict()) == named
    back = get_policy({**named.to_dict(), "ranges": "minmax"})
    assert back.fingerprint == get_policy(base).fingerprint


@pytest.mark.parametrize(
    "base, ranges, message",
    [
        ("ptq", "entropy", "observer 'entropy' is unknown"),
        ("ptq", {"percentile": 20}, "percentile 20.0 is too small"),
        ("ptq", {"p": 99}, "is not a name or .*no policy was made"),
        ("lsq", "mse", "the activations of policy 'lsq-variant' have none; no policy was made"),
        ("cq", "mse", "the activations of policy 'cq-variant' have none"),
    ],
)
def test_ranges_that_mean_nothing_are_refused(base, ranges, message):
    with pytest.raises(ValueError, match=message):
        get_policy({"base": base, "ranges": ranges})


def test_first_matching_pattern_wins():
    policy = get_policy({"base": "lsq", "rules": {"layer1.*": 8, "*conv1": 2}})
    assert policy.rule("layer1.0.conv1", first=False, last=False) == Rule(8, 8)
    assert policy.rule("layer2.0.conv1", first=False, last=False) == Rule(2, 2)
    assert policy.rule("conv1", first=True, last=False) == Rule(2, 2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sqsl", "Did you mean 'ssql'"),
        ({"base": "lsq", "frist": 8}, "Did you mean 'first'"),
        ({"base": "lsq", "weight": {"kind": "LQS"}}, "Did you mean 'LSQ'"),
        ({"base": "lsq", "first": "full"}, "not a bit rule"),
        ({"base": "lsq", "activation_side": "both"}, "Use 'input' or 'output'"),
    ],
)
def test_errors_name_the_fix(spec, message):
    with pytest.raises(ValueError, match=message):
        get_policy(spec)


def test_is_immutable():
    with pytest.raises(AttributeError):
        get_policy("lsq").name = "x"
    assert isinstance(get_policy("lsq"), QuantPolicy)
