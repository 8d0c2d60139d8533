"""What every backbone of a classifier has: a stem and four layers, at which adapters may sit.

Shapes: b blocks, p input planes, c channels, s samples a side, e length of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from av1part.models.film import StepEmbedding
from av1part.models.folded import convolve, convolve_trained, norm_scale

LEVELS = (1, 2, 3, 4)
"""Numbers of the residual layers, after each of which an adapter may sit."""

LAYERS = ("stem", *(f"layer{level}" for level in LEVELS))
"""Groups of the backbone's parameters, from the input on; attention belongs to its layer."""

AdapterMap = Mapping[str, nn.Module] | nn.ModuleDict
"""Site to adapter."""

NO_ADAPTERS: AdapterMap = {}


def adapted(x: Tensor, adapters: AdapterMap, site: str) -> Tensor:
    """Apply the adapter of a site, if it has one, to features of shape (b, c, h, w)."""
    return adapters[site](x) if site in adapters else x


def convolved(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, adapters: AdapterMap, beside: str, after: str
) -> Tensor:
    """Convolve and normalise.

    Args:
        conv: The convolution, without bias.
        norm: Its BatchNorm.
        x: Features, shape (b, c, h, w).
        adapters: Site to adapter.
        beside: Site of an adapter that works on the same input as the convolution.
        after: Site after the BatchNorm.

    Returns:
        float, shape (b, c', h', w').
    """
    if beside not in adapters:
        y = convolve(conv, norm, x)
    elif norm.training:
        y = norm(convolve_trained(conv, x) + adapters[beside](x))
    else:
        y = convolve(conv, norm, x) + adapters[beside](x) * norm_scale(norm)[:, None, None]
    return adapted(y, adapters, after)


class Backbone(nn.Module):
    """What a classifier asks of its backbone: `LAYERS`, one after the other, and pooled features.

    `channels` are those after layers 1 to 4, `condition` the embedding of the qindex for the FiLM
    layers in the blocks, or None without them. A layer that a backbone does not have is passed
    through, and has no parts.
    """

    channels: tuple[int, ...]
    condition: StepEmbedding | None

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that its features depend on and its tensors do not show, as JSON values."""
        raise NotImplementedError

    def layer_of(self, name: str) -> str:
        """Return which of `LAYERS` a parameter, buffer or module belongs to."""
        raise NotImplementedError

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield its layers' modules, each with its layer; together they hold every tensor."""
        raise NotImplementedError

    def layers(self) -> tuple[str, ...]:
        """Return those of `LAYERS` that have parameters, from the input on."""
        own = {self.layer_of(name) for name, _ in self.named_parameters()}
        return tuple(layer for layer in LAYERS if layer in own)

    def embedded(self, qindex: Tensor) -> Tensor | None:
        """Return the embedding of qindexes, (b,), that blocks are conditioned on, (b, e)."""
        return None if self.condition is None else self.condition(qindex)

    def check_context(self, size: int, context: int) -> None:
        """Check the margin around nodes, which any will do unless a backbone says otherwise.

        Args:
            size: Luma samples a side of the nodes.
            context: Luma samples of the margin.

        Raises:
            ValueError: naming the margins that would do.
        """

    def stem(self, x: Tensor, embedded: Tensor | None = None) -> Tensor:
        """Map input planes (b, p, s, s) to features (b, c, h, w)."""
        raise NotImplementedError

    def level(
        self,
        level: int,
        x: Tensor,
        adapters: AdapterMap = NO_ADAPTERS,
        embedded: Tensor | None = None,
    ) -> Tensor:
        """Apply a layer with its adapters.

        Args:
            level: Number of the layer, 1 to 4.
            x: Features of the level before, shape (b, c, h, w).
            adapters: Site to adapter; those of other levels are ignored.
            embedded: As `embedded` returns it.

        Returns:
            Features, shape (b, channels[level - 1], h', w').
        """
        raise NotImplementedError

    def after(self, level: int, x: Tensor, adapters: AdapterMap) -> Tensor:
        """Apply the adapter after a layer, if it has one, to the layer's features."""
        return adapted(x, adapters, f"layer{level}")

    def pool(self, x: Tensor) -> Tensor:
        """Return the features of the node, (b, c), from the last map, (b, c, h, w)."""
        raise NotImplementedError

    def residual(self, level: int) -> Sequence[nn.Module]:
        """Return the residual blocks of a layer, with convolutions `conv1` and `conv2`."""
        raise NotImplementedError

    def map_sides(self, side: int) -> tuple[int, ...]:
        """Return the samples a side after layers 1 to 4 for blocks of `side` luma samples."""
        raise NotImplementedError
