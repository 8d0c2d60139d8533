"""How long a run trains and how often it validates: what is refused, and what follows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from av1part.config.limits import check_batches, check_limits, max_time, planned_epochs
from av1part.config.schema import Trainer
from av1part.system.errors import ConfigError


def trainer(**changed: Any) -> dict[str, Any]:
    return {**asdict(Trainer()), **changed}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"limit_train_batches": 0}, "trainer.limit_train_batches must be a number of batches"),
        ({"limit_val_batches": 0.0}, "trainer.limit_val_batches must be"),
        ({"limit_val_batches": -1}, "got -1"),
        ({"limit_train_batches": 1.5}, "got 1.5"),
        ({"limit_train_batches": True}, "got True"),
        ({"limit_train_batches": "all"}, "got 'all'"),
        ({"val_check_interval": "00:00:10"}, "trainer.val_check_interval must be"),
        ({"max_steps": 0}, "trainer.max_steps must be -1 or at least 1"),
        ({"min_epochs": 9, "max_epochs": 3}, "trainer.min_epochs=9 is more than trainer.max_e"),
        ({"min_steps": 9, "max_steps": 3}, "trainer.min_steps=9 is more than trainer.max_steps=3"),
        ({"max_time": "1h"}, "days:hours:minutes:seconds"),
        ({"max_time": 600}, "got 600"),
        ({"max_time": "00:00:00:00"}, "got '00:00:00:00'"),
        ({"max_time": "99999999999:00:00:00"}, "days:hours:minutes:seconds"),
        ({"gradient_clip_algorithm": "value"}, "does nothing without trainer.gradient_clip_val"),
    ],
)
def test_limits_that_cannot_be(changed: dict[str, Any], message: str) -> None:
    check_limits(trainer())
    with pytest.raises(ConfigError) as refused:
        check_limits(trainer(**changed))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"limit_train_batches": 0.09}, "trainer.limit_train_batches=0.09 leaves none of 10"),
        ({"limit_val_batches": 0.3}, "trainer.limit_val_batches=0.3 leaves none of 3"),
        ({"val_check_interval": 11}, "more than the 10 batches"),
        ({"val_check_interval": 5, "limit_train_batches": 0.4}, "more than the 4 batches"),
    ],
)
def test_limits_that_do_not_fit_the_data(changed: dict[str, Any], message: str) -> None:
    check_batches(trainer(limit_train_batches=0.1, val_check_interval=1), 10, 3)
    with pytest.raises(ConfigError, match=message):
        check_batches(trainer(**changed), 10, 3)


@pytest.mark.parametrize(
    ("changed", "epochs"),
    [
        ({}, 50),
        ({"max_steps": -1}, 50),
        ({"max_steps": 20}, 2),
        ({"max_steps": 21}, 3),
        ({"max_steps": 21, "accumulate_grad_batches": 3}, 6),
        ({"max_steps": 21, "limit_train_batches": 0.5}, 5),
        ({"max_steps": 10**6}, 50),
    ],
)
def test_planned_epochs(changed: dict[str, Any], epochs: int) -> None:
    assert planned_epochs(trainer(**changed), 10) == epochs


def test_a_time() -> None:
    assert max_time(trainer()) is None
    assert max_time(trainer(max_time="01:02:03:04")) == timedelta(1, 2 * 3600 + 3 * 60 + 4)
