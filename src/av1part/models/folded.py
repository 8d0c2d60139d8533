"""Convolution and BatchNorm in one step where neither is trained, as a matrix product on tiny maps.

    conv -> bn (eval)   =   W' x + b',   W' = W gamma / sigma,   b' = beta - mean gamma / sigma

At 16x16 the maps behind layer 2 have one or four pixels. A 3x3 kernel then meets little but
padding: eight of nine weights are multiplied by zeros on a single pixel. As a matrix over the
pixels that are there, from all inputs to all outputs of the map, nothing is multiplied in vain.

What is frozen (`requires_grad=False`, eval mode) is folded by itself and kept; it is made anew when
one of its tensors has been written to or replaced, and forgotten when the layer is trained. What
may be trained is folded only inside `while_nothing_changes`, since an optimizer writes to weights
without a trace.

Shapes: b batch, c channels in, o channels out, h x w and p x q pixels in and out.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_PIXELS = 4
"""Largest map, in pixels, that is worth a matrix: on 4x4 most of it would be zeros."""


@dataclass(frozen=True)
class _Folded:
    """A convolution with its BatchNorm, and the tensors it was made of.

    Attributes:
        sources: Aliases of the tensors, which keep their memory, and their versions then.
        weight: (o, c, k, k); as a matrix (p q o, h w c); of a 1x1 kernel (o, c).
        bias: (o,), or (p q o,).
    """

    sources: tuple[tuple[Tensor, int], ...]
    weight: Tensor
    bias: Tensor

    def is_of(self, tensors: list[Tensor]) -> bool:
        """Return whether these are the tensors it was made of, not written to since."""
        return len(tensors) == len(self.sources) and all(
            alias.data_ptr() == tensor.data_ptr() and version == tensor._version
            for (alias, version), tensor in zip(self.sources, tensors, strict=True)
        )


_Form = tuple[tuple[int, int] | None, torch.dtype]
"""Pixels of the map if it is a matrix, and the dtype it computes in."""

_Kept = MutableMapping[nn.Conv2d, dict[_Form, _Folded]]

_frozen: _Kept = WeakKeyDictionary()
_inference: ContextVar[_Kept | None] = ContextVar("inference", default=None)


@contextmanager
def while_nothing_changes() -> Iterator[None]:
    """Fold what may be trained too, for as long as the context lasts and no gradient is taken."""
    token = _inference.set(WeakKeyDictionary())
    try:
        yield
    finally:
        _inference.reset(token)


def nothing_changes(now: bool) -> None:
    """Begin or end in this context what `while_nothing_changes` does for a block."""
    _inference.set(WeakKeyDictionary() if now else None)


def convolve(conv: nn.Conv2d, norm: nn.BatchNorm2d | None, x: Tensor) -> Tensor:
    """Compute `norm(conv(x))`, folded where neither is being trained.

    Args:
        conv: Zero-padded, of one group and without bias.
        norm: Its BatchNorm; None is none.
        x: float, shape (b, c, h, w).

    Returns:
        float, shape (b, o, p, q); the same as unfolded but for rounding.
    """
    tensors = _tensors(conv, norm)
    kept = _place(conv, norm, tensors)
    if kept is None:
        y = convolve_trained(conv, x)
        return y if norm is None else norm(y)
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    side = (x.shape[2], x.shape[3]) if _as_matrix(conv, x) else None
    folded = _fold(conv, norm, (side, dtype), tensors, kept.setdefault(conv, {}))
    if conv.kernel_size == (1, 1):
        pixels = x[:, :, :: conv.stride[0], :: conv.stride[1]].permute(0, 2, 3, 1)
        y = functional.linear(pixels.contiguous().to(dtype), folded.weight, folded.bias)
        return y.permute(0, 3, 1, 2)
    if side is None:
        weights = (folded.weight, folded.bias)
        return functional.conv2d(x.to(dtype), *weights, conv.stride, conv.padding)
    flat = x.permute(0, 2, 3, 1).flatten(1)  # a view where the memory format is channels_last
    y = functional.linear(flat.to(dtype), folded.weight, folded.bias)
    return y.view(len(x), *_out_sides(conv, side), conv.out_channels).permute(0, 3, 1, 2)


def convolve_trained(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Compute `conv(x)` with a gradient that is right in bfloat16 on a CPU, too.

    There oneDNN (seen in torch 2.8 and 2.15) leaves in the weights' gradient whatever the memory
    held if a map of one pixel is strided. Where there is one pixel, a stride changes nothing else.

    Args:
        conv: Zero-padded such that it halves a map.
        x: float, shape (b, c, h, w).

    Returns:
        float, shape (b, o, p, q).
    """
    if x.is_cpu and x.shape[2:] == (1, 1) and torch.is_autocast_enabled("cpu"):
        return functional.conv2d(x, conv.weight, conv.bias, padding=conv.padding)
    y: Tensor = conv(x)
    return y


def norm_scale(norm: nn.BatchNorm2d) -> Tensor:
    """Return by what a BatchNorm in eval mode multiplies each channel, shape (o,)."""
    assert norm.running_var is not None
    scale: Tensor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale


def _tensors(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> list[Tensor]:
    of_norm = () if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return [conv.weight, *(t for t in of_norm if t is not None)]


def _place(conv: nn.Conv2d, norm: nn.BatchNorm2d | None, tensors: list[Tensor]) -> _Kept | None:
    """Return where to keep a layer folded; None if it must not be."""
    if torch.compiler.is_compiling():
        return None
    in_training = norm is not None and norm.training
    if in_training or any(t.requires_grad for t in tensors):
        _frozen.pop(conv, None)
        return None if in_training or torch.is_grad_enabled() else _inference.get()
    # A tensor made under inference mode does not count its versions.
    return None if any(t.is_inference() for t in tensors) else _frozen


def _as_matrix(conv: nn.Conv2d, x: Tensor) -> bool:
    return conv.kernel_size != (1, 1) and x.shape[2] * x.shape[3] <= MOST_PIXELS


def _fold(
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d | None,
    form: _Form,
    tensors: list[Tensor],
    kept: dict[_Form, _Folded],
) -> _Folded:
    """Return what was folded before, if it is still of these tensors, else fold."""
    found = kept.get(form)
    if found is None or not found.is_of(tensors):
        # Not an inference tensor: a later training step may need it in its backward pass.
        with torch.inference_mode(False), torch.no_grad():
            sources = tuple((t.detach(), t._version) for t in tensors)
            found = kept[form] = _Folded(sources, *_weights(conv, norm, *form))
    return found


def _weights(
    conv: nn.Conv2d, norm: nn.BatchNorm2d | None, side: tuple[int, int] | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    weight = conv.weight
    scale, bias = weight.new_ones(len(weight)), weight.new_zeros(len(weight))
    if norm is not None:
        assert norm.running_mean is not None
        scale = norm_scale(norm)
        bias = norm.bias - norm.running_mean * scale
    if side is not None:
        weight = _matrix(conv, side)
        scale, bias = (each.repeat(len(weight) // len(each)) for each in (scale, bias))
    elif conv.kernel_size == (1, 1):
        weight = weight[:, :, 0, 0]
    weight = (weight * scale.view(-1, *(1,) * (weight.dim() - 1))).to(dtype)
    if weight.dim() == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return weight, bias.to(dtype)


def _matrix(conv: nn.Conv2d, side: tuple[int, int]) -> Tensor:
    """Spread the kernel (o, c, k, k) over the pixel pairs it joins, shape (p q o, h w c)."""
    weight, out = conv.weight, _out_sides(conv, side)
    matrix = weight.new_zeros(*out, len(weight), *side, weight.shape[1])
    rows, cols = (
        [
            (there, here, tap)
            for there in range(out[axis])
            for here in range(side[axis])
            if (tap := here - there * conv.stride[axis] + _padding(conv, axis)) >= 0
            and tap < conv.kernel_size[axis]
        ]
        for axis in (0, 1)
    )
    for p, h, i in rows:
        for q, w, j in cols:
            matrix[p, q, :, h, w] = weight[:, :, i, j]
    return matrix.flatten(3).flatten(0, 2)


def _padding(conv: nn.Conv2d, axis: int) -> int:
    padding = conv.padding[axis]
    assert isinstance(padding, int)
    return padding


def _out_sides(conv: nn.Conv2d, side: tuple[int, int]) -> tuple[int, int]:
    p, q = (
        (side[axis] + 2 * _padding(conv, axis) - conv.kernel_size[axis]) // conv.stride[axis] + 1
        for axis in (0, 1)
    )
    return p, q
