"""What the command line makes of its words before Hydra reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from av1part.config.words import quote_word


def read(word: str, *, multirun: bool = False) -> Any:
    """What Hydra reads in a word."""
    override = OverridesParser.create().parse_override(quote_word(word, multirun=multirun))
    return (
        list(override.sweep_string_iterator()) if override.is_sweep_override() else override.value()
    )


@pytest.mark.parametrize(
    "text",
    [
        *("1_1_1", "1e3", "007", "0x10", "-1", "inf", "NULL", "true", "größe", "🎉"),
        *("a,b", "a b ", "a=b", "a;b", "a'b", 'a"b', "{a}", "f(1)", "choice(a,b)", "~x", "#x"),
    ],
)
def test_a_name_is_what_was_typed(text: str) -> None:
    assert read(f"name={text}") == text
    assert read(f"hydra.run.dir={text}") == text


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1))
def test_any_name_is_what_was_typed(text: str) -> None:
    if text[0] not in "'\"[" and "${" not in text and text != "null":
        assert read(f"name={text}") == text


def test_what_is_no_text_stays_hydras() -> None:
    assert read("seed=1_1_1") == 111
    assert read("data.path=null") is None
    assert read("name=null") is None
    assert read("adapter.layers=[1,2]") == [1, 2]
    assert read("name=${stage.name}-x") == "${stage.name}-x"
    assert read("name='1e3'") == "1e3"


def test_a_sweep_lists_text() -> None:
    assert read("name=1e3,größe", multirun=True) == ["'1e3'", "'größe'"]
    assert read("experiment=größe/a,b", multirun=True) == ["'größe/a'", "b"]
    assert read("data.path=null,2026", multirun=True) == ["null", "'2026'"]
    assert read("taxonomy=choice(v6,v6_1to4)", multirun=True) == ["v6", "v6_1to4"]
    assert quote_word("stage3_ab=[a],[b]", multirun=True) == "stage3_ab=[a],[b]"


def test_a_path_that_exists_is_one_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[a,b]").mkdir()
    assert read("data.path=[a,b]") == "[a,b]"
    assert read("data.path=[a,b]", multirun=True) == "[a,b]"
