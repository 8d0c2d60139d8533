"""Convolution and BatchNorm in one step where neither is trained, as a matrix product on tiny maps.

    conv -> bn (eval)   =   W' x + b',   W' = W gamma / sigma,   b' = beta - mean gamma / sigma

At 16x16 the maps behind layer 2 have one or four pixels. A 3x3 kernel then meets little but
padding: eight of nine weights are multiplied by zeros on a single pixel. A matrix over the pixels
that exist, from all inputs to all outputs of the map, has no such products.

A frozen layer (`requires_grad=False`, eval mode) is always folded, and the result is kept until one
of its tensors is written to or replaced, or the layer is trained. Other layers are folded only
inside `folded_inference`, since an optimizer's writes to weights cannot be detected.

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

_FEW_CHANNELS = 16
"""Width of an AVX-512 register in float32."""

MOST_PIXELS = 4
"""Largest map, in pixels, that is computed by a matrix: on 4x4 most of it would be zeros."""


@dataclass(frozen=True)
class _Folded:
    """A convolution folded with its BatchNorm, and the tensors it was made from.

    Attributes:
        sources: Aliases of the tensors, which keep their memory, and their versions.
        weight: (o, c, k, k); as a matrix (p q o, h w c); of a 1x1 kernel (o, c).
        bias: (o,), or (p q o,).
    """

    sources: tuple[tuple[Tensor, int], ...]
    weight: Tensor
    bias: Tensor

    def is_of(self, tensors: list[Tensor]) -> bool:
        """Return whether these are the tensors it was made from, unchanged since."""
        return len(tensors) == len(self.sources) and all(
            alias.data_ptr() == tensor.data_ptr() and version == tensor._version
            for (alias, version), tensor in zip(self.sources, tensors, strict=True)
        )


_Form = tuple[tuple[int, int] | None, torch.dtype]
"""Sides of the map if it is a matrix, and the dtype of the computation."""

_Kept = MutableMapping[nn.Conv2d, dict[_Form, _Folded]]

_frozen: _Kept = WeakKeyDictionary()
_inference: ContextVar[_Kept | None] = ContextVar("inference", default=None)


@contextmanager
def folded_inference() -> Iterator[None]:
    """Fold trainable layers too, inside the context and where no gradient is taken."""
    token = _inference.set(WeakKeyDictionary())
    try:
        yield
    finally:
        _inference.reset(token)


def set_folded_inference(enabled: bool) -> None:
    """Begin or end `folded_inference` where a `with` block is not possible."""
    _inference.set(WeakKeyDictionary() if enabled else None)


def convolve(conv: nn.Conv2d, norm: nn.BatchNorm2d | None, x: Tensor) -> Tensor:
    """Compute `norm(conv(x))`, folded if neither is being trained.

    Args:
        conv: Zero-padded, of one group and without bias.
        norm: Its BatchNorm; None is none.
        x: float, shape (b, c, h, w).

    Returns:
        float, shape (b, o, p, q); equal to the unfolded result up to rounding.
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
    """Compute `conv(x)` with a gradient that is also correct on a CPU, where oneDNN's is not.

    Seen in torch 2.8 and 2.15: in bfloat16 the weights' gradient of a strided convolution of one
    pixel is not initialised; on one pixel the result does not depend on the stride. With AVX-512
    that of a strided 1x1 convolution of few channels on a large map is written beyond its end; the
    result is that of the pixels which the stride meets.

    Args:
        conv: Zero-padded such that it halves a map.
        x: float, shape (b, c, h, w).

    Returns:
        float, shape (b, o, p, q).
    """
    if x.is_cpu and x.shape[2:] == (1, 1) and torch.is_autocast_enabled("cpu"):
        return functional.conv2d(x, conv.weight, conv.bias, padding=conv.padding)
    if x.is_cpu and conv.kernel_size == (1, 1) and conv.in_channels < _FEW_CHANNELS:
        return functional.conv2d(
            x[:, :, :: conv.stride[0], :: conv.stride[1]], conv.weight, conv.bias
        )
    y: Tensor = conv(x)
    return y


def norm_scale(norm: nn.BatchNorm2d) -> Tensor:
    """Return the factor of each channel of a BatchNorm in eval mode, shape (o,)."""
    assert norm.running_var is not None
    scale: Tensor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale


def _tensors(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> list[Tensor]:
    of_norm = () if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return [conv.weight, *(t for t in of_norm if t is not None)]


def _place(conv: nn.Conv2d, norm: nn.BatchNorm2d | None, tensors: list[Tensor]) -> _Kept | None:
    """Return the cache for a folded layer; None if it must not be folded."""
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
    """Return the folded layer from the cache if its tensors are unchanged, else fold it."""
    folded = kept.get(form)
    if folded is None or not folded.is_of(tensors):
        # Not an inference tensor: a later training step may need it in its backward pass.
        with torch.inference_mode(False), torch.no_grad():
            sources = tuple((t.detach(), t._version) for t in tensors)
            folded = kept[form] = _Folded(sources, *_weights(conv, norm, *form))
    return folded


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
        scale, bias = (vector.repeat(len(weight) // len(vector)) for vector in (scale, bias))
    elif conv.kernel_size == (1, 1):
        weight = weight[:, :, 0, 0]
    weight = (weight * scale.view(-1, *(1,) * (weight.dim() - 1))).to(dtype)
    if weight.dim() == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return weight, bias.to(dtype)


def _matrix(conv: nn.Conv2d, side: tuple[int, int]) -> Tensor:
    """Return the convolution as a matrix between maps, shape (p q o, h w c)."""
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
