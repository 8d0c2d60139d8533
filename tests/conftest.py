"""Rules for all tests."""

from __future__ import annotations

from functools import cache

import pytest

from av1part.data.libaom import find_aomenc, find_inspect
from av1part.errors import EncoderError


@cache
def _missing_tool() -> str:
    """Why libaom cannot be used here, or nothing."""
    try:
        find_aomenc()
        find_inspect()
    except EncoderError as error:
        return str(error)
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `libaom` where its programs cannot be found, with the reason."""
    if item.get_closest_marker("libaom") and _missing_tool():
        pytest.skip(_missing_tool())
