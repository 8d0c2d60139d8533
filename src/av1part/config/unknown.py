"""Keys that do not exist: what to use instead of Lightning's, and what a misspelt one may mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

_LEAVE_OUT = "leave it out"

NOT_TAKEN: Mapping[str, str] = {
    "logger": "use logger=csv, logger=none or logger.names=[csv,tensorboard]",
    "callbacks": "the run has its own: use callbacks.patience, callbacks.save_every and the like",
    "enable_checkpointing": f"a run always writes verified checkpoints: {_LEAVE_OUT}",
    "enable_progress_bar": "use callbacks.progress_bar",
    "enable_model_summary": f"train.log always lists the layers and their sizes: {_LEAVE_OUT}",
    "enable_autolog_hparams": f"config.yaml in the run folder holds the settings: {_LEAVE_OUT}",
    "default_root_dir": "use name=... for another folder under runs/",
    "fast_dev_run": "writes no checkpoint: use trainer.max_epochs=1 trainer.limit_train_batches=1",
    "overfit_batches": "validates on training blocks: use trainer.limit_train_batches=N",
    "limit_test_batches": "training never uses test: av1part validate CKPT split=test does",
    "limit_predict_batches": "training predicts no other data: use av1part validate CKPT",
    "num_sanity_val_steps": f"settings and data are checked before training: {_LEAVE_OUT}",
    "reload_dataloaders_every_n_epochs": "the order of the blocks is a function of seed and epoch: "
    f"{_LEAVE_OUT}",
    "use_distributed_sampler": f"the data module divides blocks among processes: {_LEAVE_OUT}",
    "sync_batchnorm": "each process normalises its own blocks: use a larger data.batch_size",
    "plugins": f"they follow from trainer.precision and the cluster: {_LEAVE_OUT}",
    "inference_mode": f"validation never needs gradients: {_LEAVE_OUT}",
    "barebones": "leaves out checkpoints and scores: use logger=none callbacks.progress_bar=false",
    "model_registry": f"a run keeps its checkpoints in its own folder: {_LEAVE_OUT}",
}
"""Arguments of Lightning's Trainer that a run does not take, and why or what to use instead.

Those that it takes are the keys of `schema.Trainer`.
"""

_HYDRA = re.compile(r"Could not override '([^']+)'")


def no_such_key(key: str, known: Collection[str]) -> str:
    """Return the message for a key that does not exist, or not in the chosen group.

    Args:
        key: Its dotted name.
        known: The keys that exist.

    Returns:
        One line with the remedy: the key to use, a similar one, or all keys of the group.
    """
    group, _, name = key.partition(".")
    if group == "trainer" and name in NOT_TAKEN:
        return f"{key}: {NOT_TAKEN[name]}"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    if key in near:  # of another choice of its group
        return f"{key} is no key of the chosen {group}: leave it out, or choose another {group}="
    if near:
        return f"there is no {key}, did you mean {near[0]}?"
    names = [k.removeprefix(f"{group}.") for k in known if k.startswith(f"{group}.")]
    return f"there is no {key}{f': {group} has ' if names else ''}{', '.join(names)}"


def hydra_message(error: Exception, known: Collection[str]) -> str:
    """Return an error of Hydra's as text; of a key that does not exist, as `no_such_key` does."""
    for key in getattr(error, "parent_node", None) or ():
        if not isinstance(key, str) and str(key) == getattr(error, "key", None):
            kind = "true or false" if isinstance(key, bool) else "a number"
            return f"{getattr(error, 'full_key', key)}: YAML reads this name as {kind}: quote it"
    found = _HYDRA.search(str(error))
    return no_such_key(found[1], known) if found else str(error)
