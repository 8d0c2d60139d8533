"""Precisions of the computation, by the names of Lightning's Trainer."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from av1part.options import PRECISIONS

AUTOCASTS: dict[str, torch.dtype | None] = dict(
    zip(PRECISIONS, (None, torch.bfloat16, torch.float16), strict=True)
)
"""Name to the dtype of convolutions and matrix products; None is that of their inputs, float32.

Weights stay float32 in all of them, so that the state of a checkpoint has one dtype.
"""


def computing_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which a module computes in a precision.

    Args:
        precision: A key of `AUTOCASTS`.
        device: The module's.

    Returns:
        The context.
    """
    dtype = AUTOCASTS[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
