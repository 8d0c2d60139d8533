"""Encode pictures with aomenc-av1part, and count how near the second choice of its nodes is.

    python tools/near_ties.py PICTURE... --out ties.csv [--predictor NAME=FILE ...]

The first frame of each source is encoded at each cq level. For each node of the stream the gap is
how much more the cheapest other type costs than the chosen one, as far as the encoder's search
said; docs/compare.md describes the bands. Predictors are asked about the same frame.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from av1part.data.build.libaom import Children, encoder_arguments
from av1part.data.build.sources import Source, find_sources, open_sources
from av1part.data.build.yuv import write_y4m
from av1part.encoder.patched import find_patched, run_encode
from av1part.encoder.ties import count_ties
from av1part.partition import SIZES
from av1part.predictors.bundle import bundle_path, check_domain
from av1part.predictors.named import NamedPredictor, open_predictor
from av1part.predictors.run import qindex_of
from av1part.system.errors import Av1partError, ConfigError
from av1part.system.files import write_csv


def parsed(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="near_ties", description=__doc__.split("\n")[0])
    parser.add_argument("sources", nargs="+", help="pictures, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    parser.add_argument("--cq-levels", type=int, nargs="+", default=[20, 32, 43, 55])
    parser.add_argument("--cpu-used", type=int, default=0)
    parser.add_argument("--one-to-four", action="store_true", help="1:4 partitions on")
    parser.add_argument(
        "--predictor", action="append", default=[], metavar="NAME=FILE", help="bundle or checkpoint"
    )
    return parser.parse_args(words)


def opened(word: str) -> NamedPredictor:
    """Open a predictor.

    Raises:
        ConfigError: if there is no such file, or it lacks a node size.
    """
    name, _, path = word.partition("=")
    if not path or not bundle_path(path).is_file():
        raise ConfigError(f"--predictor {word}: give NAME=FILE, a bundle or a checkpoint")
    found = open_predictor(path, name)
    sizes = found.predictor.domain.sizes
    if set(SIZES) - set(sizes):
        alone = ", ".join(map(str, sizes))
        raise ConfigError(f"{name} predicts nodes of {alone} alone: give one of all sizes")
    return found


def rows_of(
    source: Source, options: argparse.Namespace, predictors: list[NamedPredictor], program: Path
) -> list[dict[str, Any]]:
    """Encode one source at each cq level, and count."""
    planes = next(iter(source.frames(1)))
    height, width = planes[0].shape
    depth = source.reader.bit_depth
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        y4m = Path(folder) / f"{source.sequence}.y4m"
        write_y4m(y4m, [planes], depth)
        for cq_level in options.cq_levels:
            arguments = encoder_arguments(
                cq_level,
                bit_depth=depth,
                cpu_used=options.cpu_used,
                one_to_four=options.one_to_four,
            )
            costs = run_encode(program, y4m, arguments, Children(), costs=True).costs
            qindex = qindex_of(cq_level)
            answers = {p.name: p.predictor.predict(planes[0], depth, qindex) for p in predictors}
            place = {"picture": source.sequence, "qindex": qindex}
            rows += [place | row for row in count_ties(costs, (height, width), answers)]
            print(f"near_ties: {source.sequence} cq {cq_level}", file=sys.stderr)
    return rows


def main(words: list[str]) -> None:
    """Write the CSV; an error leaves none.

    Raises:
        ConfigError: if the file exists, or a predictor does not fit.
    """
    options = parsed(words)
    if options.out.exists():
        raise ConfigError(f"{options.out} exists: choose another --out")
    program = find_patched().path
    predictors = [opened(word) for word in options.predictor]
    sources = open_sources(find_sources(options.sources))
    qindexes = [qindex_of(level) for level in options.cq_levels]
    for predictor in predictors:
        check_domain(predictor.predictor, {s.reader.bit_depth for s in sources}, qindexes)
    rows = [row for source in sources for row in rows_of(source, options, predictors, program)]
    write_csv(options.out, rows)
    print(f"near_ties: {options.out}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Av1partError, OSError, ValueError) as error:
        print(f"near_ties: {error}", file=sys.stderr)
        sys.exit(2)
