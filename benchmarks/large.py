"""Open a store, take the first batch, then an epoch's: what it costs, as JSON. Run by `feeding`."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from pathlib import Path

from av1part.cli.startup import share_cores

share_cores()

from av1part.data.serve.datamodule import BlockDataModule  # noqa: E402

SECONDS = 2.0


def anonymous() -> float:
    """Return this process's anonymous memory in MiB."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    """Measure the store that is named on the command line."""
    base, peak, stop = anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    data = BlockDataModule(sys.argv[1], stage="stage1", batch_size=1024)
    batches = iter(data.train_dataloader())
    next(batches)
    first = time.perf_counter() - started
    stop.set()
    watcher.join()
    blocks, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < SECONDS:
        for batch in batches:
            blocks += len(batch["node"])
            if time.perf_counter() - started > SECONDS:
                break
        else:
            batches = iter(data.train_dataloader())
    found = {
        "blocks_per_second": blocks / spent,
        "first_batch_seconds": first,
        "peak_MiB_above_imports": max(peak[0], anonymous()) - base,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
