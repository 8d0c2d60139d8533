"""Labelled frames of one clip: some of its first half to adapt to, some of its second to score.

clip     frames of both halves -> y4m -> data build -> two datasets
dataset  frames of one of its sequences
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from av1part.data.build.build import build_dataset
from av1part.data.build.settings import BuildSettings
from av1part.data.build.sources import Source
from av1part.data.build.yuv import write_y4m_frame, y4m_header
from av1part.data.store.store import Store
from av1part.data.store.writer import partial_folder
from av1part.options import LabelOrigin
from av1part.partition import Partition
from av1part.predictors.interface import Domain
from av1part.predictors.labelled import LabelledNodes, training_nodes
from av1part.system.errors import ConfigError, StoreError
from av1part.system.files import sha256_file

PARTS = ("labelled", "held_back")
"""Folders of the two datasets of a clip."""


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a clip are labelled, numbers from 0.

    Attributes:
        labelled: Of the first half, to adapt to.
        held_back: Of the second half behind a gap, to score on.
    """

    labelled: tuple[int, ...]
    held_back: tuple[int, ...]

    @classmethod
    def of(
        cls, numbers: Sequence[int], what: str, *, frames: int, scored: int, gap: int | None
    ) -> FrameChoice:
        """Spread frames evenly over both halves.

        Args:
            numbers: Frames of the clip to choose among, ascending.
            what: The clip, for an error.
            frames: Most frames of the first half.
            scored: Most frames of the second half.
            gap: Frames of the clip that are left out behind the first half; None: a tenth of those
                from its first to its last number, but at least one, as far as that leaves a frame.

        Returns:
            The frames.

        Raises:
            StoreError: if there is one frame.
            ConfigError: if the gap leaves none.
        """
        if len(numbers) < 2:
            raise StoreError(
                f"{what} has one frame: adapting learns from a clip's first half and is scored on "
                "its second, so give a clip of two frames or more"
            )
        half = len(numbers) // 2
        first, second = numbers[:half], numbers[half:]
        most = second[-1] - first[-1] - 1
        if gap is None:
            gap = min(max(1, (second[-1] - first[0] + 1) // 10), most)
        if gap > most:
            raise ConfigError(
                f"gap={gap} leaves no frame of the second half of {what}: give {most} or less"
            )
        behind = [number for number in second if number > first[-1] + gap]
        return cls(_spread(first, frames), _spread(behind, scored))


def _spread(numbers: Sequence[int], count: int) -> tuple[int, ...]:
    """Return at most `count` numbers in the middles of as many equal parts of a sequence."""
    count = min(count, len(numbers))
    return tuple(numbers[(2 * i + 1) * len(numbers) // (2 * count)] for i in range(count))


class ClipPart(LabelledNodes):
    """Labelled nodes of some frames of a clip, each frame a picture of its own."""

    def __init__(self, store: Store, sequence: str, frames: Mapping[int, int]) -> None:
        """Find the nodes.

        Args:
            store: The dataset.
            sequence: Name of the clip in it.
            frames: Frame of the dataset to its number in the clip.

        Raises:
            StoreError: if the frames have no labelled nodes.
        """
        self.sequence, self.frames = sequence, dict(frames)
        chosen = (pl.col("sequence") == sequence) & pl.col("frame").is_in(list(frames))
        numbered = store.nodes.with_row_index("node").filter(chosen)
        nodes = {
            int(size): own["node"].to_numpy().astype(np.int64)
            for (size,), own in numbered.sort("size", "node").group_by("size", maintain_order=True)
        }
        if not nodes:
            raise StoreError(f"{store.path} has no labelled node in frames of {sequence}")
        super().__init__(store, nodes)

    @property
    def table(self) -> pl.DataFrame:
        """Rows of the dataset's table."""
        every = np.sort(np.concatenate([*self.views.nodes.values()]))
        return self.store.nodes[every]

    @property
    def bit_depth(self) -> int:
        """Bits per sample."""
        return int(self.store.manifest["sequences"][self.sequence]["bit_depth"])

    def picture(self, sequence: str, frame: int) -> str:
        """Return the name of a frame."""
        return f"frame {self.frames[frame]}"

    def facts(self) -> dict[str, Any]:
        """Return what a result records of the data, as `LabelledData.facts`, and the clip."""
        return {
            "dataset": self.store.path.resolve().name,
            "manifest_sha256": self.store.manifest_sha256,
            "split": "held back",
            **dict.fromkeys(("protocol", "split_seed", "split_list")),
            "pictures": len(self.frames),
            "views": len(self),
            "qindexes": self.qindexes,
            "clip": self.sequence,
            "frames": sorted(self.frames.values()),
        }

    def labels(self) -> dict[str, Any]:
        """Return what a bundle records of the labels that it was adapted to."""
        manifest = self.store.manifest
        return {
            "dataset": self.store.path.resolve().name,
            "manifest_sha256": self.store.manifest_sha256,
            "frames": sorted(self.frames.values()),
            "qindexes": self.qindexes,
            "nodes": sum(len(own) for own in self.views.nodes.values()),
            "made_by": manifest.get("made_by"),
            "arguments": manifest.get("encoder_arguments"),
        }

    def check_types(self, domain: Domain, name: str) -> None:
        """Check that a predictor knows the types of all nodes of the sizes that it has.

        Args:
            domain: The predictor's.
            name: Its name, for an error.

        Raises:
            StoreError: naming the types that it does not know.
        """
        for size, counts in self.type_counts().items():
            own = domain.types(size)
            other = [p.name for p in Partition if counts[p] and p not in own]
            if other and size in domain.sizes:
                raise StoreError(
                    f"{self.store.path} has nodes of {', '.join(other)}, which {name} does not "
                    "know: label the clip with one_to_four=false"
                )

    def check_unseen(self, name: str, sources: Iterable[Mapping[str, Any]]) -> None:
        """Check that a predictor was not trained on these nodes.

        Args:
            name: Its name, for an error.
            sources: The datasets that it was trained on, as a bundle names them.

        Raises:
            StoreError: if it was trained on nodes among them, or on this dataset with a split that
                cannot be made again.
        """
        own = np.concatenate([*self.views.nodes.values()])
        for source in sources:
            if source.get("manifest_sha256") != self.store.manifest_sha256:
                continue
            trained = training_nodes(self.store.path, source)
            if trained is None:
                raise StoreError(
                    f"{name} was trained on a part of {self.store.path}, and does not say whether "
                    f"{self.sequence} is in it: give a clip of another dataset"
                )
            if np.isin(own, trained).any():
                raise StoreError(
                    f"{name} was trained on {self.sequence} of {self.store.path}, which says "
                    "nothing of clips that it has not seen: give one of these"
                )

    def check_classes(self, sizes: Sequence[int]) -> None:
        """Check that there is something to learn.

        Args:
            sizes: Node sizes that are adapted.

        Raises:
            StoreError: if the nodes of each size are all of one type, or there are none.
        """
        counts = {size: own for size, own in self.type_counts().items() if size in sizes}
        if all((own > 0).sum() < 2 for own in counts.values()):
            found = (f"{Partition(int(own.argmax())).name} at {s}x{s}" for s, own in counts.items())
            raise StoreError(
                f"the labelled nodes of {self.sequence} have one class each size "
                f"({', '.join(found)}), so there is nothing to adapt to: label other or more "
                "frames (frames=N), or other cq_levels"
            )


@dataclass(frozen=True)
class Labelling:
    """How the labels of a part of a clip were come by.

    Attributes:
        origin: Whether they were encoded now.
        seconds: Of the full search, wall clock; None unless all of it was now.
    """

    origin: LabelOrigin
    seconds: float | None = None


@dataclass(frozen=True)
class LabelledClip:
    """A clip with labels in both halves.

    Attributes:
        file: Its name.
        sha256: SHA-256 of the file; of the dataset's manifest, where that does not know it.
        total: Its frames.
        labelled: To adapt to.
        held_back: To score on.
        labelling: Of each of these.
    """

    file: str
    sha256: str
    total: int
    labelled: ClipPart
    held_back: ClipPart
    labelling: tuple[Labelling, Labelling]

    def facts(self) -> dict[str, Any]:
        """Return what a bundle records of the clip."""
        own = self.labelled.store.manifest["sequences"][self.labelled.sequence]
        return {
            "file": self.file,
            "sha256": self.sha256,
            "frames": self.total,
            **{key: own[key] for key in ("width", "height", "bit_depth")},
        }


def clip_of_dataset(path: Path, sequence: str | None, choose: Mapping[str, Any]) -> LabelledClip:
    """Take a sequence of a dataset as a clip, as far as its frames have labels.

    Args:
        path: The dataset.
        sequence: Name of the sequence; None: the only one.
        choose: Keyword arguments of `FrameChoice.of`.

    Returns:
        The clip; its frames are numbered as in the dataset.

    Raises:
        StoreError: if the dataset cannot be opened, or has one labelled frame.
        ConfigError: if there is no such sequence, or several and none is named.
    """
    store = Store.open(path)
    if sequence is None and len(store.sequences) > 1:
        raise ConfigError(
            f"{path} has {len(store.sequences)} sequences: name the clip, sequence="
            f"{store.sequences[0]} for example"
        )
    name = store.sequences[0] if sequence is None else sequence
    if name not in store.sequences:
        raise ConfigError(f"sequence={name}: {path} has {', '.join(store.sequences[:20])}")
    frames = sorted(store.nodes.filter(sequence=name)["frame"].unique().to_list())
    choice = FrameChoice.of(frames, f"{name} of {path}", **choose)
    labelled, held_back = (
        ClipPart(store, name, {frame: frame for frame in chosen})
        for chosen in (choice.labelled, choice.held_back)
    )
    facts = store.manifest["sequences"][name]
    return LabelledClip(
        str(facts.get("source", name)),
        str(facts.get("source_sha256", store.manifest_sha256)),
        int(facts["frames"]),
        labelled,
        held_back,
        (Labelling("there"), Labelling("there")),
    )


def label_clip(
    source: Source,
    folder: Path,
    settings: BuildSettings,
    jobs: int,
    choose: Mapping[str, Any],
    check: Callable[[ClipPart], None],
) -> LabelledClip:
    """Encode frames of both halves of a clip in full search, and read the decisions back.

    Args:
        source: The clip.
        folder: For the datasets; labels that are there already are used if they are the same.
        settings: Of the builds.
        jobs: Encoders that run at a time.
        choose: Keyword arguments of `FrameChoice.of`.
        check: Called with the part to adapt to, before the other is encoded.

    Returns:
        The clip.

    Raises:
        StoreError: if it has one frame, or the folder has labels of something else.
        ConfigError: if the gap leaves no frame.
        SourceError: if the clip cannot be read.
        EncoderError: if aomenc or inspect is missing or fails.
    """
    choice = FrameChoice.of(range(source.reader.frames), str(source.path), **choose)
    parts, labelling = [], []
    with tempfile.TemporaryDirectory() as work:
        chosen = (choice.labelled, choice.held_back)
        clips = [Path(work) / part / f"{source.sequence}.y4m" for part in PARTS]
        _write_frames(source, dict(zip(clips, chosen, strict=True)))
        for part, clip, numbers in zip(PARTS, clips, chosen, strict=True):
            out = folder / part
            store, found = _there(out, clip, settings), Labelling("there")
            if store is None:
                # What an earlier call encoded is not encoded again, and how long it took is lost.
                resumed, started = partial_folder(out).exists(), time.perf_counter()
                store = build_dataset([clip], out, jobs=jobs, **asdict(settings))
                seconds = time.perf_counter() - started
                found = Labelling("resumed") if resumed else Labelling("encoded", seconds)
            labelling.append(found)
            parts.append(ClipPart(store, store.sequences[0], dict(enumerate(numbers))))
            if len(parts) == 1:
                check(parts[0])
    return LabelledClip(
        source.path.name,
        source.sha256,
        source.reader.frames,
        parts[0],
        parts[1],
        (labelling[0], labelling[1]),
    )


def _write_frames(source: Source, chosen: Mapping[Path, Sequence[int]]) -> None:
    """Write frames of a clip, by their numbers, to a y4m file each set, in one pass."""
    reader = source.reader
    header = y4m_header(reader.width, reader.height, reader.bit_depth)
    for path in chosen:
        path.parent.mkdir(parents=True)
        path.write_bytes(header)
    last = max(max(numbers) for numbers in chosen.values())
    for number, planes in enumerate(source.frames(last + 1)):
        for path, numbers in chosen.items():
            if number in numbers:
                with path.open("ab") as file:
                    write_y4m_frame(file, planes)


def _there(folder: Path, clip: Path, settings: BuildSettings) -> Store | None:
    """Open a dataset that an earlier call made of the same frames; None if there is none.

    Raises:
        StoreError: if it is of something else.
    """
    if not folder.exists():
        return None
    store = Store.open(folder)
    wanted = json.loads(json.dumps(asdict(settings)))  # as a manifest has it
    facts = store.manifest["sequences"].get(clip.stem, {})
    same = facts.get("source_sha256") == sha256_file(clip)
    if not same or store.manifest.get("settings") != wanted:
        raise StoreError(
            f"{folder} has labels of other frames or settings: choose another labels=DIR"
        )
    return store
