"""The new process of `callbacks.verify=process`: a checkpoint's path in, one JSON record out.

Started by `readback.read_back_in_new_process`, with the arguments CKPT BATCHES|all RANKS DEVICE
PRECISION; no command of `av1part`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

from av1part.checkpoints.load import load_stage
from av1part.defects import DEFECTS
from av1part.evaluation.attach import attach_data, device_of
from av1part.system.errors import Av1partError
from av1part.system.files import sha256_file
from av1part.training.callbacks.readback import ReadBack


def read_back(
    path: Path, *, batches: int | None, ranks: int, device: str, precision: str = "32-true"
) -> ReadBack:
    """Rebuild a checkpoint's module from the file alone and validate it on its own data.

    Args:
        path: The checkpoint.
        batches: Only the first so many val batches; None is all.
        ranks: Processes of the training; the first one's share of the batches is evaluated.
        device: Where to evaluate.
        precision: Precision of the computation, a key of `AUTOCASTS`.

    Returns:
        The hashes of its tensors, and its score.

    Raises:
        CheckpointError: if the file is refused.
        StoreError: if its data is missing or has changed.
    """
    file_sha256 = sha256_file(path)
    module = load_stage(path, defects=DEFECTS)
    shares = attach_data(module).batches("val", ranks=ranks)
    module.to(device_of(device))
    return ReadBack.of(module, file_sha256, shares, limit=batches, precision=precision)


def main(argv: Sequence[str]) -> int:
    """Print the record; all other output goes to stderr.

    Args:
        argv: CKPT, number of batches or `all`, number of ranks, device, precision.

    Returns:
        The exit code: 0, or 2 with one line on stderr.
    """
    path, batches, ranks, device, precision = argv
    try:
        with redirect_stdout(sys.stderr):
            record = read_back(
                Path(path),
                batches=None if batches == "all" else int(batches),
                ranks=int(ranks),
                device=device,
                precision=precision,
            )
    except (Av1partError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(json.dumps(asdict(record)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
