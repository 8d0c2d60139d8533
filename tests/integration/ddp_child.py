"""`av1part WORDS...` that also leaves the first step's gradients and the validation's figures.

Lightning starts the other processes of a run by the words of the first, so this is a program of its
own: `python ddp_child.py OUT train ...`; OUT gets `gradients.pt` and `validation.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from av1part.cli.main import main
from av1part.training import trainer as trainer_module


class Keep(Callback):
    """Keeps what the test compares; of several processes, the first does."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        if trainer.global_step == 0 and trainer.is_global_zero:
            named = module.named_parameters()
            gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
            torch.save(gradients, self.out / "gradients.pt")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        seen = self.out / f"nodes-{trainer.global_rank}.txt"
        with seen.open("a") as file:
            file.write("".join(f"{node}\n" for node in batch["node"].tolist()))

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            loss = float(trainer.callback_metrics["val/loss"])
            said = {**module.val_result, "val_loss": loss}
            (self.out / "validation.json").write_text(json.dumps(said))


if __name__ == "__main__":
    out = Path(sys.argv[1])
    build = trainer_module._trainer
    trainer_module._trainer = lambda settings, folder, callbacks: build(
        settings, folder, [*callbacks, Keep(out)]
    )
    words = sys.argv[2:]
    sys.exit(main(words))
