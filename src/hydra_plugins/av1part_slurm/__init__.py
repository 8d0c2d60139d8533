"""Hydra's launcher for SLURM: submitit's, with the result or the error of every job.

submitit's own launcher waits for ever for a job that SLURM has ended, where there is no accounting;
where there is, it abandons all other jobs at the first such one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)


class SlurmLauncher(Launcher):
    """Submits the jobs of a sweep as an array, and waits for them; see `av1part.sweeps.slurm`."""

    def __init__(self, **params: Any) -> None:
        """Store the keys of conf/hydra/launcher/slurm.yaml."""
        self.params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check SLURM and the keys, and store Hydra's objects."""
        from av1part.sweeps.slurm import FOLDER, check_available

        check_available()
        from hydra_plugins.hydra_submitit_launcher import config as schema
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (
            SlurmLauncher as SubmititLauncher,
        )

        self.sweep = Path(config.hydra.sweep.dir)
        # What runs in a job is submitit's launcher, pickled.
        self.job = SubmititLauncher(**self.params)
        self.job.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.context, self.config = hydra_context, config
        known = OmegaConf.structured(schema.SlurmQueueConf)
        known.submitit_folder = str(self.sweep / FOLDER / "%j")
        keys = OmegaConf.to_container(OmegaConf.merge(known, self.params), resolve=True)
        assert isinstance(keys, dict)
        self.keys = {str(key): value for key, value in keys.items() if key != "_target_"}
        self.shared = set(OmegaConf.structured(schema.BaseQueueConf))

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit jobs and wait for all of them.

        Args:
            job_overrides: Overrides of each job.
            initial_job_idx: Number of the first.

        Returns:
            Their results, in order; the error of a failed one is in its folder's job.json.
        """
        from av1part.sweeps import slurm

        jobs = self._submit(job_overrides, initial_job_idx)
        overrides = {job.job_id: own for job, own in zip(jobs, job_overrides, strict=True)}
        by_id = {job.job_id: job for job in jobs}
        log.info("%d jobs given to SLURM, the first is %s", len(jobs), jobs[0].job_id)
        results = {job_id: job.paths.result_pickle for job_id, job in by_id.items()}
        returned = {}
        with slurm.cancelled_if_interrupted(results):
            for job_id, end in slurm.ended(results, self.sweep):
                returned[job_id] = self._returned(by_id[job_id], end, overrides[job_id])
        return [returned[job_id] for job_id in by_id]

    def _submit(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Any]:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from av1part.sweeps.slurm import submission_error

        keys = dict(self.keys)
        init = {"folder": keys.pop("submitit_folder")}
        init["slurm_max_num_timeout"] = keys.pop("max_num_timeout")
        executor = submitit.AutoExecutor(cluster="slurm", **init)
        if keys["cpus_per_task"] is not None:  # srun does not take it over from sbatch since 22.05
            keys["srun_args"] = [f"--cpus-per-task={keys['cpus_per_task']}"]
        executor.update_parameters(
            **{key if key in self.shared else f"slurm_{key}": v for key, v in keys.items()}
        )
        state = Singleton.get_state()
        calls = [
            (list(words), "hydra.sweep.dir", number, str(number), state)
            for number, words in enumerate(job_overrides, first)
        ]
        try:
            return list(executor.map_array(self.job, *zip(*calls, strict=True)))
        except (FailedJobError, FailedSubmissionError) as error:
            raise submission_error(error) from None

    def _returned(self, job: Any, end: str | None, overrides: Sequence[str]) -> JobReturn:
        """Return a job's result; without one, record the failure in its folder."""
        from av1part.sweeps.state import record_failure
        from av1part.system.errors import SweepError

        if end is None:
            if (error := job.exception()) is None:
                returned: JobReturn = job.results()[0]
                return returned
            lines = [line for line in str(error).split("\n-----")[1].splitlines() if line.strip()]
            end = lines[-1]
        failure = SweepError(f"SLURM's job {job.job_id}: {end}, see {job.paths.stderr}")
        cfg = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        record_failure(Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir, failure)
        return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=failure)
