"""How long waiting threads spin: longer where nothing else runs, and as the user says otherwise."""

from __future__ import annotations

import os

import pytest

from av1part.cli.startup import share_cores


@pytest.mark.parametrize(("load", "spins"), [(0.0, "5000"), (0.49, "5000"), (0.5, "1000")])
def test_by_the_load_of_the_last_minute(
    monkeypatch: pytest.MonkeyPatch, load: float, spins: str
) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    share_cores()
    assert os.environ == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": spins}


def test_what_the_user_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}
    monkeypatch.setattr(os, "environ", dict(given))
    share_cores()
    assert os.environ == given


def test_a_system_without_a_load_counts_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.delattr(os, "getloadavg")
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
