"""Composing a sweep's jobs: overrides, folder, and what the result of each depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from av1part.config.check import check_values, plain
from av1part.config.words import quote_path
from av1part.runs.schema import best_checkpoint
from av1part.runs.sweeps import START
from av1part.sweeps.plan import Job, Plan
from av1part.sweeps.state import State, depends_on, state_of


@dataclass(frozen=True)
class Composed:
    """A job with its folder and what it depends on.

    Attributes:
        job: The job.
        overrides: Its overrides, with those of its folder and its start.
        folder: Its folder.
        wanted: What its result depends on, as `state.depends_on` returns it.
    """

    job: Job
    overrides: tuple[str, ...]
    folder: Path
    wanted: dict[str, Any]

    @property
    def state(self) -> State:
        """State of the job's folder."""
        return state_of(self.folder, self.wanted)

    @property
    def best(self) -> Path:
        """The best checkpoint; other jobs start from that of a Stage 1."""
        return best_checkpoint(self.folder)


class Composer:
    """Composes the jobs of one sweep."""

    def __init__(self, folder: Path, config: DictConfig, loader: Any, plan: Plan) -> None:
        """Store what composing needs.

        Args:
            folder: The sweep's.
            config: Hydra's configuration of the sweep.
            loader: Hydra's.
            plan: The sweep's; where it names no folders, Hydra names them by the overrides.
        """
        self.folder = folder
        self.config = config
        self.loader = loader
        self.plan = plan
        self._settings: dict[tuple[str, ...], dict[str, Any]] = {}

    def __call__(self, job: Job, start: Path | None = None) -> Composed:
        """Compose a job; `start` is the checkpoint that it starts from, if any."""
        overrides = self._overrides(job, start)
        cfg = self.loader.load_sweep_config(self.config, list(overrides))
        folder = Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir
        return Composed(job, overrides, folder, depends_on(self._plain(cfg)))

    def with_start(self, job: Job, starts: Sequence[Composed]) -> Composed | None:
        """Compose a job that starts from one of the sweep's Stage-1 runs, if it needs one.

        Args:
            job: The job.
            starts: The Stage-1 runs.

        Returns:
            The job; None if its Stage 1 is not done.

        Raises:
            ConfigError: if a file that the job names does not exist.
        """
        if self.plan.start is None or job.variant == START or not self._needs_start(job):
            return self(job)
        of = job.variant if self.plan.start_per_variant else None
        for start in starts:
            same = (start.job.of, start.job.fold, start.job.seed) == (of, job.fold, job.seed)
            if same and start.state.kind == "done":
                return self(job, start.best)
        return None

    def settings(self, overrides: tuple[str, ...]) -> dict[str, Any]:
        """Compose a job's settings and check them.

        Args:
            overrides: The job's.

        Returns:
            The settings, plain values.

        Raises:
            ConfigError: naming the key.
        """
        if overrides not in self._settings:
            cfg = self.loader.load_sweep_config(self.config, list(overrides))
            self._settings[overrides] = self._plain(cfg)
        return self._settings[overrides]

    def configure_log(self) -> None:
        """Show this process's log lines as those of a job; launchers undo that."""
        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)

    def _overrides(self, job: Job, start: Path | None) -> tuple[str, ...]:
        overrides = [*job.overrides, "resume=true"]
        if self.plan.names_folders:
            overrides += [f"hydra.sweep.dir={quote_path(str(self.folder))}"]
            overrides += [f"hydra.sweep.subdir={job.place}"]
        if start is not None:
            overrides.append(f"stage1={quote_path(str(start))}")
        return tuple(overrides)

    def _needs_start(self, job: Job) -> bool:
        """Return whether a job needs a start: not if it starts at random or has weights given."""
        own_weights = any(override.startswith("backbone.weights=") for override in job.overrides)
        return bool(self.settings(job.overrides)["method"]["name"] != "scratch" and not own_weights)

    def _plain(self, cfg: DictConfig) -> dict[str, Any]:
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        check_values(own, "train")
        return plain(own)
