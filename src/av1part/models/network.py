"""What training asks of any network: its parts, which of them are frozen, when they thaw."""

from __future__ import annotations

from torch import Tensor, nn

from av1part.models.freeze import Thaw


class Network(nn.Module):
    """A network of named parts; one that does not say otherwise is trained whole.

    `thaw` is the first epoch of each layer that may be frozen, see `freeze.thaw_epochs`; `frozen`
    are the layers that are frozen now, and `cut` is the last place before which no layer is ever
    trained, or None.
    """

    backbone: nn.Module
    thaw: Thaw
    frozen: tuple[str, ...]
    cut: int | None

    def __init__(self) -> None:
        super().__init__()
        self.thaw, self.frozen, self.cut = {}, (), None

    def frozen_at(self, epoch: int) -> tuple[str, ...]:
        """Return the layers that are not trained in an epoch, input first."""
        return tuple(k for k, first in self.thaw.items() if first is None or epoch < first)

    def set_epoch(self, epoch: int) -> None:
        """Freeze or thaw layers for an epoch."""

    def frozen_state(self) -> dict[str, Tensor]:
        """Return every frozen parameter and buffer by its full name (not copies)."""
        return {}

    def parameter_groups(self, *, by_layer: bool = False) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that are trained in any epoch, each exactly once.

        Args:
            by_layer: A group for each layer instead of one for each part, where there are any.

        Returns:
            Part (or layer) to its parameters; those without any are left out.
        """
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            groups.setdefault(name.partition(".")[0], []).append(parameter)
        return groups

    def backbone_state(self) -> dict[str, Tensor]:
        """Return the tensors of the part `backbone`, by their names in it."""
        return self.backbone.state_dict()

    def compile_trained(self) -> None:
        """Compile what every step computes."""
        self.compile()
