"""Hydra's sweeper of av1part; Hydra finds sweepers only in this namespace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class PlanSweeper(Sweeper):
    """Runs the jobs of a plan that have no result yet; see `av1part.sweeps.run`."""

    def __init__(self, **_: Any) -> None:
        """Ignore the keys of conf/hydra/sweeper/plan.yaml, already resolved here; see `setup`."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Store Hydra's objects, and the plan unresolved: `${seed}` is each job's own."""
        plan = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
        assert isinstance(plan, dict)
        self.plan = {str(key): value for key, value in plan.items() if key != "_target_"}
        self.context, self.task, self.settings = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        """Run the jobs of a command line.

        Args:
            arguments: Overrides of the command line.

        Returns:
            The folders of the finished jobs.
        """
        from hydra.core.plugins import Plugins

        from av1part.sweeps.run import run_sweep

        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task, config=self.settings
        )
        return run_sweep(self.plan, arguments, self.settings, self.context.config_loader, launcher)
