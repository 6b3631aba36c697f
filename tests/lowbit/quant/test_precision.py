import pytest

from lowbit.quant import FP, Precision


@pytest.mark.parametrize("text", ["4w3a", "W4A3", "w4a3", " 4W3A "])
def test_parses_both_notations(text):
    assert Precision.parse(text) == Precision(4, 3)


def test_prints_what_it_parses():
    for text in ("2w2a", "16w16a", "4w32a", "FP"):
        assert str(Precision.parse(text)) == text


def test_orders_by_weight_bits_then_activation_bits_with_fp_highest():
    names = ["FP", "3w3a", "8w8a", "4w4a", "4w8a"]
    assert [str(p) for p in sorted(map(Precision.parse, names))] == [
        "3w3a",
        "4w4a",
        "4w8a",
        "8w8a",
        "FP",
    ]


def test_keys_a_table():
    assert {Precision.parse("4w4a"): 1}[Precision(4, 4)] == 1
    assert FP.is_fp and not Precision(4, 32).is_fp


@pytest.mark.parametrize("text", ["4", "4w", "0w4a", "4w17a", "fp16", ""])
def test_refuses_what_is_no_precision(text):
    with pytest.raises(ValueError, match=r"no precision was created|not a precision"):
        Precision.parse(text)
