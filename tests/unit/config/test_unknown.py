"""Keys that do not exist: every argument of Lightning's Trainer has its place."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest
import pytorch_lightning as pl

from av1part.config.schema import Trainer, options_of
from av1part.config.unknown import NOT_TAKEN, no_such_key

GUIDE = Path(__file__).parents[3] / "docs" / "configuration.md"
LIGHTNING = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
TAKEN = {field.name for field in fields(Trainer)}
TORCH = {"matmul_precision", "compile"}


def test_each_argument_of_lightning_is_either_taken_or_refused() -> None:
    assert (TAKEN - TORCH) | set(NOT_TAKEN) == LIGHTNING
    assert not TAKEN & set(NOT_TAKEN)


def test_the_guide_says_which() -> None:
    text = GUIDE.read_text()
    works, _, refused = text.partition("are refused")
    assert not [key for key in TAKEN if f"`{key}`" not in works]
    assert not [key for key in NOT_TAKEN if f"`{key}`" not in refused]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("trainer.max_epoch", "there is no trainer.max_epoch, did you mean trainer.max_epochs?"),
        ("trainer.fast_dev_run", "trainer.fast_dev_run: writes no checkpoint: use trainer.max_ep"),
        ("data.bath_size", "there is no data.bath_size, did you mean data.batch_size?"),
        ("cache.xyz", "there is no cache.xyz: cache has mode, folder, limit_gb"),
        ("xyz", "there is no xyz"),
    ],
)
def test_what_to_use_instead(key: str, message: str) -> None:
    assert no_such_key(key, options_of("train")).startswith(message)


def test_a_key_of_another_choice_is_not_its_own_remedy() -> None:
    message = no_such_key("policy.tau", options_of("predict"))
    assert message == (
        "policy.tau is no key of the chosen policy: leave it out, or choose another policy="
    )
