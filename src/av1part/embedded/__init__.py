"""The small dataset that is part of the package; see LICENCES.md beside it."""

from pathlib import Path

STORE: Path = Path(__file__).parent / "store"
"""The dataset folder; open it with `av1part.data.store.store.Store.open`."""

SPLIT_LIST: Path = Path(__file__).parent / "split.csv"
"""Its split by sequence: CSV with the header `sequence,split`, values train, val and test."""
