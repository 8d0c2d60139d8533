"""Hydra's way to `av1part.sweeps`: it takes sweepers from this namespace alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class PlanSweeper(Sweeper):
    """Runs what a plan still lacks; see `av1part.sweeps.run`."""

    def __init__(self, **_: Any) -> None:
        """Leave the keys of conf/hydra/sweeper/plan.yaml: Hydra has resolved them, see `setup`."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands over, the plan as it is written: `${seed}` is each job's own."""
        plan = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
        assert isinstance(plan, dict)
        self.plan = {str(key): value for key, value in plan.items() if key != "_target_"}
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
