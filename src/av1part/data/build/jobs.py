"""Threads that run encoders, which are killed with the job that started them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from av1part.data.build.libaom import Children

_POLL_SECONDS = 0.2


@contextmanager
def encoder_pool(jobs: int) -> Iterator[tuple[ThreadPoolExecutor, Children]]:
    """Yield threads that run encoders; on an error or Ctrl-C the encoders are killed first."""
    children = Children()
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool, children
    except BaseException:
        children.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def wait_for_any(running: Collection[Future[Any]]) -> set[Future[Any]]:
    """Wait until at least one job has ended; return those that have."""
    # Polars replaces the handler of SIGINT, which then ends no wait: a timeout lets Ctrl-C in.
    while not (done := wait(running, _POLL_SECONDS, FIRST_COMPLETED).done):
        pass
    return done
