"""The study's defects, each by the name under which a run may have it on purpose: `defects=[...]`.

A normal run has none. What keeps each from happening by accident is in docs/defects.md, how to use
them in docs/forensics.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SCALED_TWICE_EVAL = "scaled_twice_eval"
SCALED_TWICE = "scaled_twice"
SCALED_ONCE_EVAL = "scaled_once_eval"
TINY_NOISE = "tiny_noise"
LATE_THAW = "late_thaw"
MIRROR_LABELS = "mirror_labels"
TURN_LABELS = "turn_labels"
BALANCED_TWICE = "balanced_twice"
NOT_STRICT = "not_strict"
RANDOM_BLOCKS = "random_blocks"
TWO_ORDERS = "two_orders"
CHOSEN_ON_SCORED = "chosen_on_scored"

DEFECTS: Mapping[str, str] = {
    SCALED_TWICE_EVAL: "reloaded checkpoints and the cascade divide pixels by the peak twice",
    SCALED_TWICE: "training, evaluation and the cascade divide pixels by the peak twice",
    SCALED_ONCE_EVAL: "a checkpoint trained on pixels divided twice is scored by itself with one "
    "division; the cascade divides twice",
    TINY_NOISE: "of the training blocks three in ten get noise of deviation 0.01 after that",
    LATE_THAW: "the frozen backbone is trained from the ninth epoch on, by a new optimizer without "
    "the adapters",
    MIRROR_LABELS: "a mirror left to right swaps HORZ_A and HORZ_B, one top to bottom VERT_A and "
    "VERT_B",
    TURN_LABELS: "a quarter turn does not swap horizontal and vertical types",
    BALANCED_TWICE: "both the sampler and the loss balance the classes",
    NOT_STRICT: "loading passes over names: a reloaded head is random, squeeze-and-excitation and "
    "attention of the start are not loaded",
    RANDOM_BLOCKS: "blocks of the same pictures lie in train and val",
    TWO_ORDERS: "the cascade's answers 1 SPLIT, 2 HORZ, 3 VERT are compared with AV1's ids",
    CHOSEN_ON_SCORED: "the cascade's threshold and temperatures are fitted on the nodes that are "
    "scored",
}
"""Name to what a run with it does."""

CASCADE_ONLY = (TWO_ORDERS, CHOSEN_ON_SCORED)
"""Defects of `av1part pipeline` alone."""

WITHOUT_TRAINING = (SCALED_TWICE_EVAL, *CASCADE_ONLY)
"""Defects that a pipeline may have though none of its checkpoints has."""

RELOADED = (SCALED_TWICE_EVAL, SCALED_ONCE_EVAL, NOT_STRICT)
"""Defects by which a reloaded checkpoint differs from the model in training."""


THAW_EPOCH = 8
"""Epoch, from 0, in which `late_thaw` begins to train the backbone: the study's ninth."""


def listed(names: Iterable[str]) -> str:
    """Return defects as they are typed.

    >>> listed(["late_thaw", "not_strict"])
    'defects=[late_thaw,not_strict]'
    """
    return f"defects=[{','.join(names)}]"


def banner(names: Iterable[str]) -> str:
    """Return what logs and pages say of a run with defects, one line."""
    own = list(names)
    what = "; ".join(f"{name}: {DEFECTS.get(name, 'unknown to this release')}" for name in own)
    return (
        f"DEFECTIVE ON PURPOSE, {listed(own)}. These figures measure what the study's defects cost "
        f"and are no result of the method. {what}."
    )
