"""Convolution and BatchNorm in one step where neither is trained, as a matrix product on tiny maps.

    conv -> bn (eval)   =   W' x + b',   W' = W gamma / sigma,   b' = beta - mean gamma / sigma

At 16x16 the maps behind layer 2 have one or four pixels. A 3x3 kernel then meets little but
padding: eight of nine weights are multiplied by zeros on a single pixel. As a matrix over the
pixels that are there, from all inputs to all outputs of the map, nothing is multiplied in vain.

Nothing has to be told when weights change: what is folded is kept with the tensors it came from
and made anew when one of them has been written to or replaced.

Shapes: b batch, c channels in, o channels out, h x w and p x q pixels in and out.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_PIXELS = 4
"""Largest map, in pixels, that is worth a matrix: on 4x4 it would hold two zeros for each weight."""


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

_kept: WeakKeyDictionary[nn.Conv2d, dict[_Form, _Folded]] = WeakKeyDictionary()


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
    if not _is_fixed(norm, tensors):
        y: Tensor = conv(x)
        return y if norm is None else norm(y)
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    side = (x.shape[2], x.shape[3]) if _as_matrix(conv, x) else None
    folded = _fold(conv, norm, (side, dtype), tensors)
    if conv.kernel_size == (1, 1):
        pixels = x[:, :, :: conv.stride[0], :: conv.stride[1]].permute(0, 2, 3, 1)
        y = functional.linear(pixels.contiguous().to(dtype), folded.weight, folded.bias)
        return y.permute(0, 3, 1, 2)
    if side is None:
        y = functional.conv2d(x.to(dtype), folded.weight, folded.bias, conv.stride, conv.padding)
        return y
    flat = x.permute(0, 2, 3, 1).flatten(1)  # a view where the memory format is channels_last
    y = functional.linear(flat.to(dtype), folded.weight, folded.bias)
    return y.view(len(x), *_out_sides(conv, side), conv.out_channels).permute(0, 3, 1, 2)


def _tensors(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> list[Tensor]:
    of_norm = () if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return [conv.weight, *(t for t in of_norm if t is not None)]


def _is_fixed(norm: nn.BatchNorm2d | None, tensors: list[Tensor]) -> bool:
    if (norm is not None and norm.training) or torch.compiler.is_compiling():
        return False
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    # A tensor made under inference mode does not count its versions.
    return not trained and not any(t.is_inference() for t in tensors)


def _as_matrix(conv: nn.Conv2d, x: Tensor) -> bool:
    return conv.kernel_size != (1, 1) and x.shape[2] * x.shape[3] <= MOST_PIXELS


def _fold(
    conv: nn.Conv2d, norm: nn.BatchNorm2d | None, form: _Form, tensors: list[Tensor]
) -> _Folded:
    """Return what was folded before, if it is still of these tensors, else fold."""
    forms = _kept.setdefault(conv, {})
    found = forms.get(form)
    if found is None or not found.is_of(tensors):
        # Not an inference tensor: a later training step may need it in its backward pass.
        with torch.inference_mode(False), torch.no_grad():
            sources = tuple((t.detach(), t._version) for t in tensors)
            found = forms[form] = _Folded(sources, *_weights(conv, norm, *form))
    return found


def _weights(
    conv: nn.Conv2d, norm: nn.BatchNorm2d | None, side: tuple[int, int] | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    weight = conv.weight.double()
    bias = weight.new_zeros(len(weight))
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = weight * scale[:, None, None, None]
        bias = norm.bias.double() - norm.running_mean.double() * scale
    if side is not None:
        out = _out_sides(conv, side)
        weight, bias = _matrix(conv, weight, side, out), bias.repeat(out[0] * out[1])
    elif conv.kernel_size == (1, 1):
        weight = weight[:, :, 0, 0]
    weight = weight.to(dtype)
    if weight.dim() == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return weight.contiguous() if weight.dim() == 2 else weight, bias.to(dtype)


def _matrix(conv: nn.Conv2d, weight: Tensor, side: tuple[int, int], out: tuple[int, int]) -> Tensor:
    """Spread a kernel (o, c, k, k) over the pixel pairs it joins, shape (p q o, h w c)."""
    matrix = weight.new_zeros(*out, len(weight), *side, weight.shape[1])
    rows, cols = (
        [
            (there, here, tap)
            for there in range(out[axis])
            for here in range(side[axis])
            if 0 <= (tap := here - there * conv.stride[axis] + _padding(conv, axis))
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
