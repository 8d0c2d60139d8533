"""The superblock network of `av1part demo`: its settings, its bundle, and it beside the cascade."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose

from av1part.cli.commands.compare import PAGE, compare_in
from av1part.predictors.bundle import Bundle, write_bundle
from av1part.predictors.fitted import ClassPrior
from av1part.predictors.superblock import load_superblock
from av1part.report.render.tables import percent
from av1part.runs.compared import SCORES_FILE, is_compared
from av1part.runs.fields import Fields
from av1part.runs.schema import CONFIG_FILE
from av1part.runs.settings import flat_settings, read_text
from av1part.system.errors import Av1partError
from av1part.system.files import sha256_file

_BUNDLE = "superblock.av1part"
"""The file of the network, in the demo's folder."""

_CASCADE, _NETWORK = "cascade", "superblock"
"""Names of both in the comparison."""

_GROUPS = ("taxonomy", "trainer", "callbacks", "logger", "baselines", "trees")
_SPLIT = ("path", "protocol", "split_seed", "split_list")
_DATA = {"data", *(f"data.{name}" for name in (*_SPLIT, "num_workers", "planes"))}
"""`data` alone chooses a file of one's own, which may name the dataset."""


def shared_words(words: Sequence[str]) -> list[str]:
    """Return the overrides that mean the same for the superblock network as for a stage.

    Those of a stage's network, optimizer and blocks mean nothing or something else there.

    >>> shared_words(["backbone.se=true", "data.path=mine", "data.context=4", "trainer=gpu"])
    ['data.path=mine', 'trainer=gpu']
    >>> shared_words(["data=mine", "loss=focal"])
    ['data=mine']
    """
    keys = [word.partition("=")[0].lstrip("+~") for word in words]
    return [
        word
        for word, key in zip(words, keys, strict=True)
        if key in _DATA or key.partition(".")[0] in _GROUPS
    ]


def bundle_superblock(checkpoint: Path, folder: Path) -> Path:
    """Write the demo's superblock network as a bundle, with the calibration beside it."""
    return write_bundle(folder / _BUNDLE, Bundle(load_superblock(checkpoint)))


def compare_with_cascade(
    network: Path, cascade: Path, run: Path, size: int, out: Path
) -> list[str]:
    """Score the cascade and the superblock network on the same val nodes, as `av1part compare`.

    A comparison of the same two files that is there already is kept.

    Args:
        network: Bundle of the superblock network.
        cascade: Bundle of the cascade.
        run: Run folder of the network, which names the data.
        size: Node size of the cascade.
        out: For comparisons, one for each pair of files.

    Returns:
        Lines on what was found, or on why nothing was.
    """
    try:
        return _compared(network, cascade, run, size, out)
    except Av1partError as error:  # the trainings are done all the same
        return [f"superblock network and cascade are not compared: {error}"]


def _compared(network: Path, cascade: Path, run: Path, size: int, out: Path) -> list[str]:
    bundles = {_CASCADE: cascade, _NETWORK: network}
    place = out / "-".join(sha256_file(path)[:12] for path in bundles.values())
    if not is_compared(place):
        cfg = compose("compare", ["baselines=[prior]", "out=."])
        settings = flat_settings(read_text(run / CONFIG_FILE), run / CONFIG_FILE)
        for key in _SPLIT:
            cfg.data[key] = settings[f"data.{key}"]
        compare_in(cfg, [f"{name}={path}" for name, path in bundles.items()], place)
    scores = Fields.read(place / SCORES_FILE).child("sizes", str(size), "predictors")
    found = {name: _scores(scores, name) for name in (_NETWORK, _CASCADE, ClassPrior.name)}
    return [
        f"most probable of all types at {size}x{size}, on val: superblock network log loss "
        f"{found[_NETWORK]}; the cascade {found[_CASCADE]}; "
        f"the class prior {found[ClassPrior.name]}",
        f"both at all sizes, with intervals: {place / PAGE}",
    ]


def _scores(scores: Fields, name: str) -> str:
    loss, accuracy = (
        scores.number(name, "scores", key, "estimate") for key in ("log_loss", "accuracy")
    )
    return f"{loss:.3f}, accuracy {percent(accuracy)} %"
