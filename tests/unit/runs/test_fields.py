from __future__ import annotations

from pathlib import Path

import pytest

from av1part.metrics.intervals import Interval
from av1part.runs.fields import Fields
from av1part.system.errors import ReportError

FILE = Path("run/metrics.json")


def fields(**data: object) -> Fields:
    return Fields(data, FILE)


def test_a_key_is_given_in_parts() -> None:
    nested = fields(baselines={"constant": {"accuracy": 0.5}})
    assert nested.number("baselines", "constant", "accuracy") == 0.5
    assert nested.get("baselines", "prior", "accuracy") is None
    assert nested.get("baselines", "constant", "accuracy", "mean") is None


@pytest.mark.parametrize("value", [None, "0.5", True, [0.5], float("nan"), float("inf")])
def test_what_is_no_finite_number_names_file_and_key(value: object) -> None:
    with pytest.raises(ReportError, match=r"^run/metrics\.json lacks `accuracy` \(a .*number\)"):
        fields(accuracy=value).number("accuracy")


def test_absent_is_none_but_wrong_is_an_error() -> None:
    assert fields().optional("accuracy") is None
    assert fields(accuracy=None).optional("accuracy") is None
    with pytest.raises(ReportError, match="accuracy"):
        fields(accuracy="much").optional("accuracy")


def test_each_kind_is_checked() -> None:
    good = fields(n=3.0, s="x", names=["a"], row=[1, 2], o={"k": 1}, many={"a": {}}, list=[{}])
    assert good.integer("n") == 3
    assert good.text("s") == "x"
    assert good.texts("names") == ("a",)
    assert good.numbers("row") == (1.0, 2.0)
    assert good.child("o").number("k") == 1
    assert list(good.children("many")) == ["a"]
    assert len(good.items("list")) == 1
    bad = fields(n=3.5, s=1, names=[], row=[1, "2"], o=[], many={"a": 1}, list=[1])
    for ask, key in (
        (bad.integer, "n"),
        (bad.text, "s"),
        (bad.texts, "names"),
        (bad.numbers, "row"),
        (bad.child, "o"),
        (bad.children, "many"),
        (bad.items, "list"),
    ):
        with pytest.raises(ReportError, match=key):
            ask(key)


def test_message_says_where_in_the_file() -> None:
    with pytest.raises(ReportError, match=r"lacks `flat\.ece` \(a number\)"):
        fields(flat={}).child("flat").number("ece")


def test_interval_without_limits_is_an_interval() -> None:
    one = fields(i={"estimate": 0.5, "low": None, "high": None})
    assert one.interval("i") == Interval(0.5, None, None)
    assert one.interval("other") is None


def test_read_refuses_what_is_no_object(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    with pytest.raises(ReportError, match=r"x\.json is missing"):
        Fields.read(file)
    for text in ("{", "[1]", "\xff"):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(ReportError, match=r"x\.json") as error:
            Fields.read(file)
        assert "\n" not in str(error.value)
