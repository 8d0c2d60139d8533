"""A real SLURM of one node or more on loopback, in a temporary folder, while a test runs.

Debian's slurmctld, slurmd and munged with a configuration, key, ports and spool folders of their
own: nothing of the system's is read or written, and several such clusters can run side by side.
Needs root, since slurmd starts jobs as their owner, and Debian's packages, see `APT`.

    with one_node() as cluster:
        cluster.run("sbatch", "--wrap", "hostname")     # any command, `av1part train -m` too
        subprocess.run([...], env=cluster.environment)  # the same with one's own arguments
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo", "squeue", "scancel")
APT = "apt install slurmctld slurmd slurm-client munge"

GPUS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
"""Device files that are on every machine, to pretend that they are a GPU's."""

SETTINGS = {
    "ClusterName": "av1part",
    "SlurmUser": "root",
    "SlurmdUser": "root",
    "AuthType": "auth/munge",
    "CredType": "cred/munge",
    "MpiDefault": "none",
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_CPU_Memory",
    "JobAcctGatherType": "jobacct_gather/none",
    "AccountingStorageType": "accounting_storage/none",
    "GresTypes": "gpu",
    "ReturnToService": "2",
    "JobRequeue": "1",
    "DefMemPerCPU": "256",  # else the first job has all of it, and the others wait
    # It may then say that it has more cores than the machine.
    "SlurmdParameters": "config_overrides",
    # Look for work every second, not twice a minute.
    "SchedulerParameters": "bf_interval=1,sched_interval=1,batch_sched_delay=0",
}
"""Of slurm.conf; without folders, ports and node."""


class UnavailableError(Exception):
    """Why no SLURM can be started here, with the remedy."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        folder: Its configuration, logs (`slurmctld.log`, `slurmd-<node>.log`) and spool folders.
        environment: The environment that its commands, and whatever calls them, must run in.
    """

    folder: Path
    environment: Mapping[str, str]

    def run(
        self, *words: str | Path, check: bool = True, timeout: float = 600, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the cluster's environment; `check` raises with what it said."""
        done = subprocess.run(
            [str(word) for word in words],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(map(str, words))} returned {done.returncode}:\n"
                f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )
        return done

    def jobs(self) -> dict[str, str]:
        """Return the state of each job that is not over: id (`7`, in an array `8_1`) to state."""
        said = self.run("squeue", "--noheader", "--array", "--format=%i %T").stdout
        return dict(map(str.split, said.splitlines()))

    def wait_until_empty(self, seconds: float = 60) -> None:
        """Wait for all jobs to be over."""
        _until(lambda: not self.jobs(), seconds, lambda: f"jobs are left: {self.jobs()}")

    def clear(self) -> None:
        """Cancel all jobs and wait until they are gone, so that a test begins with none."""

        def cancelled() -> bool:
            left = self.jobs()
            for job in left:  # again and again: a job in between two states refuses it
                self.run("scancel", job, check=False)
            return not left

        _until(cancelled, 60, lambda: f"jobs are left: {self.jobs()}")


@contextmanager
def one_node(cpus: int = 4, gpus: int = 0, nodes: int = 1, **settings: str) -> Iterator[Cluster]:
    """Start a cluster, and end it.

    A requeued job starts again after 5 s, and is killed 10 s after it was asked to end.

    Args:
        cpus: What each node says it has, whatever the machine has.
        gpus: GPUs that each pretends to have, four at most: jobs may ask for them, and find none.
        nodes: More than one are daemons of this machine all the same, called `<host>-1` and so on;
            no name server knows those names, so that torch needs `MASTER_ADDR=127.0.0.1`.
        **settings: Lines of slurm.conf to add or replace, such as `KillWait="2"`.

    Yields:
        The cluster, idle.

    Raises:
        UnavailableError: if it cannot be started here.
    """
    _check()
    # Not pytest's folder: a socket's path is short, and munged wants its folder readable to all.
    folder = Path(tempfile.mkdtemp(prefix="av1part-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    names = [_host()] if nodes == 1 else [f"{_host()}-{i}" for i in range(1, nodes + 1)]
    _configure(folder, names, cpus, gpus, settings)
    own = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN"))}
    cluster = Cluster(folder, {**own, "SLURM_CONF": str(folder / "slurm.conf")})
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            _start(cluster, names, stack)
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            said = " ".join(str(error).split())
            raise UnavailableError(f"no SLURM could be started: {said}") from None
        try:
            yield cluster
        finally:
            with suppress(Exception):  # whatever is left of it: its daemons are ended next
                cluster.clear()


def _start(cluster: Cluster, nodes: Sequence[str], stack: ExitStack) -> None:
    folder = cluster.folder
    munged = stack.enter_context(_daemon(cluster, "munged", _munged(folder)))
    answers = (folder / "munge.socket").exists
    _until(lambda: answers() or _ended(munged), 10, lambda: _why(folder, "munged"))
    conf = ["-D", "-f", str(folder / "slurm.conf")]
    commands = {"slurmctld": ["slurmctld", *conf]}
    commands |= {f"slurmd-{node}": ["slurmd", "-N", node, *conf] for node in nodes}
    ours = [stack.enter_context(_daemon(cluster, *each)) for each in commands.items()]
    _until(lambda: _ended(*ours) or _answers(cluster), 30, lambda: _why(folder, *commands))
    if _ended(*ours):
        raise OSError(_why(folder, *commands))
    cluster.run("srun", f"--nodes={len(nodes)}", "hostname", timeout=30)


def _check() -> None:
    if os.geteuid() != 0:
        raise UnavailableError("a SLURM for tests needs root, which slurmd starts jobs as")
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing or shutil.which("setpriv") is None:
        raise UnavailableError(f"no {', '.join(missing or ['setpriv'])} on PATH: {APT}")


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _munged(folder: Path) -> list[str]:
    files = {"key": "munge.key", "log": "munged.log", "pid": "munged.pid", "seed": "munged.seed"}
    named = [f"--{what}-file={folder / name}" for what, name in files.items()]
    return ["munged", "--foreground", f"--socket={folder / 'munge.socket'}", *named]


def _configure(
    folder: Path, nodes: Sequence[str], cpus: int, gpus: int, settings: Mapping[str, str]
) -> None:
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    (folder / "state").mkdir()
    host = _host()
    controller, *ports = _free_ports(1 + len(nodes))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    lines = {
        **SETTINGS,
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": str(controller),
        # A requeued job waits for as long as a credential lasts, 120 s unless said.
        "AuthInfo": f"socket={folder / 'munge.socket'},cred_expire=5",
        "KillWait": "10",
        "StateSaveLocation": str(folder / "state"),
        "SlurmdSpoolDir": str(folder / "spool-%n"),
        "SlurmctldPidFile": str(folder / "slurmctld.pid"),
        "SlurmdPidFile": str(folder / "slurmd-%n.pid"),
        "SlurmctldLogFile": str(folder / "slurmctld.log"),
        "SlurmdLogFile": str(folder / "slurmd-%n.log"),
        **settings,
    }
    has = f"CPUs={cpus} RealMemory={memory} State=UNKNOWN" + (f" Gres=gpu:{gpus}" if gpus else "")
    text = [f"{key}={value}\n" for key, value in lines.items()]
    for node, port in zip(nodes, ports, strict=True):
        place = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
        text.append(f"NodeName={node} {place} {has}\n")
    # A partition follows its nodes.
    text.append(f"PartitionName=main Nodes={','.join(nodes)} Default=YES MaxTime=INFINITE\n")
    (folder / "slurm.conf").write_text("".join(text))
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={f}\n" for f in GPUS[:gpus]))


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _daemon(cluster: Cluster, name: str, words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon in the foreground; it ends with this process too, however that ends."""
    tied = ["setpriv", "--pdeathsig", "TERM", *words]
    environment = {**cluster.environment, "PATH": _path()}
    with (cluster.folder / f"{name}.out").open("wb") as out:
        # In a group of its own: Ctrl-C is for the tests, which then end it in their order.
        process = subprocess.Popen(
            tied, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ended(*processes: subprocess.Popen[bytes]) -> bool:
    return any(process.poll() is not None for process in processes)


def _answers(cluster: Cluster) -> bool:
    with suppress(AssertionError, subprocess.TimeoutExpired):
        states = cluster.run("sinfo", "--noheader", "--format=%T", timeout=20).stdout.split()
        return states == ["idle"]  # one line for all nodes of a state
    return False


def _until(condition: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(why())
        time.sleep(0.1)


def _why(folder: Path, *daemons: str) -> str:
    said = []
    for name in daemons:
        for file in (folder / f"{name}.out", folder / f"{name}.log"):
            lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
            said += [line for line in lines if "error" in line.lower()][-2:]
    return "; ".join(said) or f"{' and '.join(daemons)} did not answer"
