"""A predictor as one file that can be mailed, written by `write_bundle`, opened by `read_bundle`.

    predictor -> facts (JSON) + arrays -> safetensors file -> Bundle, the same predictor

`bundle_file` is the file, `bundle_kinds` what each kind of predictor consists of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part import __version__, embedded
from av1part.checkpoints.contents import plain_values
from av1part.evaluation.attach import CPU, Compute, device_of
from av1part.options import OUTSIDES, PRETRAINED, Outside
from av1part.partition import SIZES
from av1part.predictors.bundle_file import (
    halved,
    is_half,
    read_bundle_file,
    read_facts,
    to_bytes,
    widened,
)
from av1part.predictors.bundle_kinds import KINDS, Kind
from av1part.predictors.interface import Distributions, Domain, Predictor
from av1part.system.errors import Av1partError, BundleError, first_line
from av1part.system.files import atomic_path, expanded, sha256_file
from av1part.system.formats import refusal

log = logging.getLogger(__name__)

BUNDLE_FORMAT = 1
"""Version of the file."""

NO_LICENCE = "none given"
"""Stands for the licence where the author gave none."""

_REMEDY = "make the bundle again"
_MOST_TEXT = 500
"""Characters of the name and of the licence."""

_FACTS: Mapping[str, type] = {
    **dict.fromkeys(("kind", "name", "av1part", "outside", "licence"), str),
    **dict.fromkeys(("domain", "content", "tensors"), dict),
    "sources": list,
    "format": int,
}

_BAD_VALUES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
"""Errors that building a predictor from values that are not its own may raise."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, which is a predictor.

    Attributes:
        predictor: What it holds.
        outside: What happens outside of its domain: `warn` or `refuse`.
        licence: As its author gave it.
        sources: For each dataset it was trained on, its name and the hashes of manifest and split.
        file: Where it was read from.
        half: Whether its weights are stored as float16; once read they are float32.
    """

    predictor: Predictor
    outside: Outside = "warn"
    licence: str = NO_LICENCE
    sources: Sequence[Mapping[str, Any]] = ()
    file: Path | None = None
    half: bool = False

    @property
    def name(self) -> str:
        """See `Predictor`."""
        return self.predictor.name

    @property
    def domain(self) -> Domain:
        """See `Predictor`."""
        return self.predictor.domain

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        """Predict all nodes of a frame; see `Predictor`.

        Args:
            plane: Luma samples, integers `[h, w]`.
            bit_depth: Bits per sample.
            qindex: Base quantiser index, 0 to 255.

        Returns:
            The distributions.

        Raises:
            BundleError: if they are not finite, as those of a network of huge weights are.
        """
        distributions = self.predictor.predict(plane, bit_depth, qindex)
        if not all(np.isfinite(values).all() for values in distributions.values()):
            raise BundleError(
                f"bundle {self.file or self.name} computes no probabilities: make it again, from "
                "checkpoints that av1part validate has tried"
            )
        return distributions


def bundle_path(path: str | Path) -> Path:
    """Return the file that is meant where a bundle is asked for.

    Args:
        path: A path, or the word `pretrained` for the predictor that comes with the package; a
            file of that name is `./pretrained`.

    Returns:
        The file, which may not exist.
    """
    if path != PRETRAINED:
        return expanded(path)
    if Path(PRETRAINED).exists():
        log.warning("%s is the predictor that comes with av1part, not ./%s", PRETRAINED, PRETRAINED)
    return embedded.PRETRAINED_FILE


def write_bundle(
    path: str | Path, bundle: Bundle, check: Callable[[Bundle], None] | None = None
) -> Path:
    """Write a predictor to a file and read it back; the same predictor gives the same bytes.

    Args:
        path: The file, replaced if it exists.
        bundle: The predictor with its licence; sources of a cascade are its checkpoints'.
        check: Called with the bundle that was read back, before the file gets its name; if it
            raises, there is no file.

    Returns:
        The file written.

    Raises:
        BundleError: if no kind of bundle holds such a predictor, its kind has no weights to store
            as float16, the file's name is the word `pretrained`, or what was written is refused.
    """
    if path == PRETRAINED:
        raise BundleError(f"{PRETRAINED} is the predictor that comes with av1part: give ./{path}")
    path = expanded(path)
    predictor = bundle.predictor
    kind = next((name for name, kind in KINDS.items() if type(predictor) is kind.of), None)
    if kind is None:
        raise BundleError(f"a bundle cannot hold {predictor.name}: it holds {', '.join(KINDS)}")
    if _is_bad(bundle.licence):
        shown = ascii(bundle.licence[:40])
        raise BundleError(
            f"licence={shown}: give one printable line of at most {_MOST_TEXT} characters"
        )
    if bundle.half and not KINDS[kind].half:
        able = ", ".join(name for name, own in KINDS.items() if own.half)
        raise BundleError(
            f"a {kind} has no weights to store as float16, {able} has: leave out half=true"
        )
    packed = KINDS[kind].pack(predictor)
    arrays = halved(packed.arrays, packed.weights) if bundle.half else packed.arrays
    facts = {
        "format": BUNDLE_FORMAT,
        "av1part": __version__,
        "kind": kind,
        "name": predictor.name,
        "domain": asdict(predictor.domain),
        "outside": bundle.outside,
        "licence": bundle.licence,
        "sources": list(packed.sources or bundle.sources),
        "content": packed.content,
    }
    try:
        data = to_bytes(facts, arrays)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{predictor.name} has values that JSON has not: {error}") from None
    with atomic_path(path) as part:
        part.write_bytes(data)
        read = read_bundle(part)
        if check is not None:
            check(read)
    return path


def read_bundle(path: str | Path, compute: Compute = CPU) -> Bundle:
    """Open a bundle: nothing of it is run, and every inconsistency is an error.

    Args:
        path: The file, as of `bundle_path`.
        compute: Device and precision of networks.

    Returns:
        The predictor, whose answers are those of the one that was written.

    Raises:
        BundleError: if the file is missing, damaged, hostile, of another format, or describes no
            predictor.
        ConfigError: if there is no such device.
    """
    device_of(compute.device)
    path = bundle_path(path)
    facts, arrays = read_bundle_file(path)
    _check_facts(path, facts)
    kind, half = KINDS[facts["kind"]], is_half(arrays)
    try:
        _check_half(kind, half=half)
        domain = _domain(facts["domain"])
        predictor = kind.unpack(facts["content"], widened(arrays), domain, compute)
    except (Av1partError, *_BAD_VALUES) as error:
        raise BundleError(
            f"bundle {path} does not describe a predictor of kind {facts['kind']}: "
            f"{first_line(error)}; {_REMEDY}"
        ) from None
    return Bundle(predictor, facts["outside"], facts["licence"], facts["sources"], path, half)


def bundle_contents(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read what a bundle holds, as plain values by section; nothing is built.

    Args:
        path: The file, as of `bundle_path`.

    Returns:
        `bundle`, `domain`, a section a dataset that it was trained on, and one a cascade.

    Raises:
        BundleError: as `read_bundle`, as far as the facts go.
    """
    path = bundle_path(path)
    facts, dtypes = read_facts(path)
    _check_facts(path, facts)
    content = facts["content"]
    parts = {facts["kind"]: content}
    if isinstance(content.get("cascades"), dict):
        parts = content["cascades"]
    elif isinstance(content.get("adapted"), dict):
        parts = {"network": content.get("network"), **content["adapted"]}
    sections: dict[str, Any] = {
        "bundle": {
            "file": str(path.resolve()),
            "bytes": path.stat().st_size,
            "file_sha256": sha256_file(path),
            **{key: facts[key] for key in ("format", "av1part", "kind", "name", "licence")},
            "outside": facts["outside"],
            "tensors": len(facts["tensors"]),
            "stored": len(set(facts["tensors"].values())),
            "dtypes": dtypes,
        },
        "domain": facts["domain"],
    }
    for number, source in enumerate(facts["sources"], start=1):
        sections[f"trained on {number}"] = source
    for name, part in parts.items():
        sections[f"{facts['kind']} {name}"] = part
    return {str(name): _section(section) for name, section in sections.items() if section}


def _section(values: Any) -> dict[str, Any]:
    """Reduce a section to plain values, with each stage as an entry of its own."""
    if not isinstance(values, dict):
        return {"value": plain_values(values)}
    stages = values.get("stages")
    flat = {key: value for key, value in values.items() if key != "stages"}
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        known = isinstance(stage, dict) and isinstance(stage.get("members"), list)
        flat[name] = stage if not known else {**stage, "members": len(stage["members"])}
    plain: dict[str, Any] = plain_values(flat)
    return plain


def check_domain(predictor: Predictor, bit_depths: Iterable[int], qindexes: Iterable[int]) -> None:
    """Warn of questions outside of what a predictor was trained on, or refuse them.

    Args:
        predictor: A `Bundle` holds which of both; any other predictor warns.
        bit_depths: Bits per sample of the sources.
        qindexes: Base quantiser indexes that will be asked for.

    Raises:
        BundleError: if the bundle refuses.
    """
    domain, (low, high) = predictor.domain, predictor.domain.qindexes
    reasons = []
    if outside := sorted({qindex for qindex in qindexes if not low <= qindex <= high}):
        reasons.append(f"qindex {outside} is outside of {low} to {high}, the trained range")
    if depths := sorted(set(bit_depths) - set(domain.bit_depths)):
        trained = " and ".join(map(str, domain.bit_depths))
        reasons.append(f"sources of {depths} bits are shifted to the trained {trained}")
    if reasons and isinstance(predictor, Bundle) and predictor.outside == "refuse":
        raise BundleError(
            f"bundle {predictor.file or predictor.name} refuses what it was not trained on: "
            f"{'; '.join(reasons)}; leave these out, or use another predictor"
        )
    for reason in reasons:
        log.warning("%s: %s", predictor.name, reason)


def _check_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Check the facts that every kind has.

    Raises:
        BundleError: if one is missing or cannot be.
    """
    version, wrote = facts.get("format"), facts.get("av1part")
    if version != BUNDLE_FORMAT:
        raise BundleError(refusal(f"bundle {path}", version, BUNDLE_FORMAT, wrote, _REMEDY))
    wrong = [key for key, type_ in _FACTS.items() if type(facts.get(key)) is not type_]
    if wrong or facts.keys() != _FACTS.keys():
        different = ", ".join(sorted({*wrong, *facts.keys() ^ _FACTS.keys()}))
        raise BundleError(f"bundle {path} lacks or adds facts ({different}): {_REMEDY}")
    if facts["kind"] not in KINDS:
        raise BundleError(
            f"bundle {path} is of kind {facts['kind']!r}, av1part {__version__} knows "
            f"{', '.join(KINDS)}: use a later av1part, the one that wrote it or newer"
        )
    texts = [facts[key] for key in ("name", "licence", "av1part")]
    if facts["outside"] not in OUTSIDES or any(_is_bad(text) for text in texts):
        raise BundleError(f"bundle {path} has a name, licence or rule that cannot be: {_REMEDY}")
    if not all(isinstance(source, dict) for source in facts["sources"]):
        raise BundleError(f"bundle {path} has sources that cannot be: {_REMEDY}")


def _check_half(kind: Kind, *, half: bool) -> None:
    """Check that only a kind that may has weights of float16.

    Raises:
        ValueError: if another one has.
    """
    if half and not kind.half:
        raise ValueError("an array is of float16")


def _is_bad(text: str) -> bool:
    return not text.isprintable() or not 0 < len(text) <= _MOST_TEXT


def _domain(values: Mapping[str, Any]) -> Domain:
    """Return the domain that a file claims.

    Raises:
        ValueError: if it cannot be.
    """
    domain = Domain(
        sizes=_increasing(values["sizes"], SIZES),
        qindexes=_increasing(values["qindexes"], range(256), strictly=False),  # type: ignore[arg-type]
        bit_depths=_increasing(values["bit_depths"], range(8, 17)),
        one_to_four=values["one_to_four"],
    )
    sound = len(domain.qindexes) == 2 and type(domain.one_to_four) is bool and len(values) == 4
    if not sound:
        raise ValueError("its domain is none")
    return domain


def _increasing(values: Any, among: Sequence[int], *, strictly: bool = True) -> tuple[int, ...]:
    kept = tuple(value for value in values if type(value) is int and value in among)
    ordered = sorted(set(kept) if strictly else kept)
    if not kept or list(kept) != ordered or len(kept) != len(values):
        raise ValueError("its domain is none")
    return kept
