"""Hydra's way to `av1part.sweeps`: it takes sweepers from this namespace alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PlanSweeper(Sweeper):
    """Runs what a plan still lacks; see `av1part.sweeps.run`."""

    def __init__(self, **plan: Any) -> None:
        """Take the keys of conf/hydra/sweeper/plan.yaml."""
        self.plan = plan

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands over."""
        self.context, self.task, self.settings = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        """Run the jobs of the words given.

        Args:
            arguments: The command line's overrides.

        Returns:
            The folders of the finished jobs.
        """
        from hydra.core.plugins import Plugins

        from av1part.sweeps.run import run_sweep

        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task, config=self.settings
        )
        return run_sweep(self.plan, arguments, self.settings, self.context.config_loader, launcher)
