"""What travels with the package: a small dataset and a trained predictor; see LICENCES.md."""

from pathlib import Path

STORE: Path = Path(__file__).parent / "store"
"""The dataset folder; open it with `av1part.data.store.store.Store.open`."""

SPLIT_LIST: Path = Path(__file__).parent / "split.csv"
"""Its split by sequence: CSV with the header `sequence,split`, values train, val and test."""

PRETRAINED_FILE: Path = Path(__file__).parent / "pretrained.av1part"
"""A trained predictor; open it with `av1part.predictors.bundle.read_bundle`."""
