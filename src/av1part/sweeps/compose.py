"""Making a sweep's jobs ready: each with its words, its folder, and what its result depends on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from av1part.config.check import check_values, plain
from av1part.config.words import quote_path
from av1part.sweeps.plan import Job
from av1part.sweeps.state import State, depends_on, state_of


@dataclass(frozen=True)
class Composed:
    """A job with its folder and what it depends on.

    Attributes:
        job: The job.
        words: Its overrides, with those of its folder and its start.
        folder: Its folder.
        wanted: What its result depends on, as `state.depends_on` has it.
    """

    job: Job
    words: tuple[str, ...]
    folder: Path
    wanted: dict[str, Any]

    @property
    def state(self) -> State:
        """How far it is."""
        return state_of(self.folder, self.wanted)

    @property
    def best(self) -> Path:
        """The checkpoint that it keeps; other jobs start from that of a Stage 1."""
        return self.folder / "checkpoints" / "best.ckpt"


class Composer:
    """Makes jobs ready to be launched."""

    def __init__(self, folder: Path, config: DictConfig, loader: Any, *, named: bool) -> None:
        """Keep what composing needs.

        Args:
            folder: The sweep's.
            config: Hydra's configuration of the sweep.
            loader: Hydra's.
            named: Whether the plan names folders; else Hydra does, after the words.
        """
        self.folder = folder
        self.config = config
        self.loader = loader
        self.named = named
        self._known: dict[tuple[str, ...], dict[str, Any]] = {}

    def __call__(self, job: Job, start: Path | None) -> Composed:
        """Make a job ready, which starts from the checkpoint `start` if it needs one."""
        words = self.words(job, start)
        cfg = self.loader.load_sweep_config(self.config, list(words))
        folder = Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir
        return Composed(job, words, folder, depends_on(self._plain(cfg)))

    def words(self, job: Job, start: Path | None) -> tuple[str, ...]:
        """Return the words of a job, with those that say where it is and that it may go on."""
        words = [*job.words, "resume=true"]
        if self.named:
            words += [f"hydra.sweep.dir={quote_path(str(self.folder))}"]
            words += [f"hydra.sweep.subdir={job.variant or 'run'}/{job.member}"]
        if start is not None and self.starts_elsewhere(job):
            words.append(f"stage1={quote_path(str(start))}")
        return tuple(words)

    def starts_elsewhere(self, job: Job) -> bool:
        """Return whether a job needs a start: not if it starts at random or has weights given."""
        own_weights = any(word.startswith("backbone.weights=") for word in job.words)
        return bool(self.settings(job.words)["method"]["name"] != "scratch" and not own_weights)

    def settings(self, words: tuple[str, ...]) -> dict[str, Any]:
        """Compose a job's settings and check them.

        Args:
            words: The job's.

        Returns:
            The settings, plain values.

        Raises:
            ConfigError: naming the key.
        """
        if words not in self._known:
            cfg = self.loader.load_sweep_config(self.config, list(words))
            self._known[words] = self._plain(cfg)
        return self._known[words]

    def log(self) -> None:
        """Have the log lines of this process shown as a job's are; launchers end that."""
        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)

    def _plain(self, cfg: DictConfig) -> dict[str, Any]:
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        check_values(own, "train")
        return plain(own)
