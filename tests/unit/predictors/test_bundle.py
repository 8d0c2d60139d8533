"""Bundles: the same predictions bit for bit, the same bytes, and nothing hostile is opened."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save

from av1part import __version__
from av1part.predictors.bundle import (
    Bundle,
    bundle_contents,
    check_domain,
    read_bundle,
    write_bundle,
)
from av1part.predictors.bundle_file import canonical, sha256_array
from av1part.predictors.bundle_kinds import KINDS
from av1part.predictors.interface import Distributions, Domain, Predictor
from av1part.system.errors import BundleError

from .small import small_predictors

KIND_NAMES = sorted(KINDS)
PLANE = np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8)

Facts = dict[str, Any]
Stored = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def bundled(small_store: Path, store_8x8: Path) -> Mapping[str, Predictor]:
    return small_predictors(small_store, store_8x8)


@pytest.fixture(scope="module")
def files(bundled: Mapping[str, Predictor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of each kind."""
    folder = tmp_path_factory.mktemp("bundles")
    for kind, predictor in bundled.items():
        write_bundle(folder / kind, Bundle(predictor, licence="CC0-1.0"))
    return folder


def same(first: Distributions, second: Distributions) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[size], second[size]) for size in first
    )


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_a_bundle_answers_as_the_predictor_did(
    kind: str, bundled: Mapping[str, Predictor], files: Path
) -> None:
    predictor, bundle = bundled[kind], read_bundle(files / kind)
    assert (bundle.name, bundle.domain) == (predictor.name, predictor.domain)
    assert (bundle.licence, bundle.outside) == ("CC0-1.0", "warn")
    answers = [predictor.predict(PLANE, 8, qindex) for qindex in (80, 200)]
    assert answers[0], "something is predicted"
    assert not same(*answers), "the qindex counts"
    for qindex, answer in zip((80, 200), answers, strict=True):
        assert same(bundle.predict(PLANE, 8, qindex), answer)


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_the_same_predictor_gives_the_same_bytes(kind: str, files: Path, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "again", read_bundle(files / kind))
    # What was opened is a predictor, not what it was opened from.
    assert again.read_bytes() == (files / kind).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_shared_backbone_is_stored_once_and_no_folder_is_named(files: Path) -> None:
    facts, stored = take_apart((files / "cascade").read_bytes())
    assert len(stored) < len(facts["tensors"]) / 3
    assert b"/home/somebody" not in (files / "cascade").read_bytes()
    assert str(files.parent).encode() not in (files / "cascade").read_bytes()
    member = facts["content"]["cascades"]["16"]["stages"]["stage1"]["members"][0]
    assert member["start"]["stage1"] == "s1.ckpt"
    sources = {source["manifest_sha256"] for source in facts["sources"]}
    assert member["data"]["manifest_sha256"] in sources
    assert len(sources) == 2


def test_the_contents_are_those_of_the_file(files: Path) -> None:
    sections = bundle_contents(files / "cascade")
    assert sections["bundle"]["licence"] == "CC0-1.0"
    assert sections["bundle"]["av1part"] == __version__
    data = (files / "cascade").read_bytes()
    assert sections["bundle"]["file_sha256"] == hashlib.sha256(data).hexdigest()
    assert sections["domain"]["sizes"] == [8, 16]
    cascade = sections["cascade 16"]
    assert cascade["threshold"] == 0.4
    assert cascade["stage3_ab"]["temperatures"] == [1.25, 0.7]
    assert cascade["stage3_ab"]["members"] == 2
    assert list(cascade["stage3_rect"]["classes"]) == ["HORZ", "VERT"]


def test_an_adapted_network_names_its_base_and_its_clip(files: Path) -> None:
    sections = bundle_contents(files / "adapted")
    assert sections["adapted base"]["sha256"] == "0" * 64
    assert sections["trained on 2"]["clip"] == "clip.mkv"
    assert sections["trained on 2"]["clip_sha256"] == "1" * 64
    assert sections["trained on 2"]["frames"] == [1, 3]
    assert sections["domain"]["qindexes"] == [80, 200]


def test_what_the_check_refuses_is_not_written(
    bundled: Mapping[str, Predictor], tmp_path: Path
) -> None:
    def refuse(read: Bundle) -> None:
        assert same(read.predict(PLANE, 8, 80), bundled["adapted"].predict(PLANE, 8, 80))
        raise BundleError("not this one")

    with pytest.raises(BundleError, match="not this one"):
        write_bundle(tmp_path / "adapted", Bundle(bundled["adapted"]), refuse)
    assert not list(tmp_path.iterdir())


def test_outside_of_the_domain_it_warns_or_refuses(
    bundled: Mapping[str, Predictor], caplog: pytest.LogCaptureFixture
) -> None:
    prior = bundled["prior"]
    assert prior.domain.qindexes == (80, 220)
    check_domain(Bundle(prior, "refuse"), [8], [80, 220])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        check_domain(prior, [8], [79, 100, 0])
        check_domain(Bundle(prior, "warn"), [8, 10], [100])
    assert caplog.messages == [
        "class prior: qindex [0, 79] is outside of 80 to 220, the trained range",
        "class prior: sources of [10] bits are shifted to the trained 8",
    ]
    for depth, qindex in ((10, 100), (8, 221)):
        with pytest.raises(BundleError, match="refuses what it was not trained on"):
            check_domain(Bundle(prior, "refuse"), [depth], [qindex])


def test_a_predictor_of_no_kind_is_refused(tmp_path: Path) -> None:
    @dataclass
    class Other:
        name: str = "other"
        domain: Domain = Domain()  # noqa: RUF009 (frozen)

        def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
            return {}

    with pytest.raises(BundleError, match="cannot hold other: it holds cascade, prior"):
        write_bundle(tmp_path / "other", Bundle(Other()))
    assert not list(tmp_path.iterdir())


def test_what_would_be_refused_is_not_written(
    bundled: Mapping[str, Predictor], tmp_path: Path
) -> None:
    file = tmp_path / "prior"
    file.write_bytes(b"before")
    for licence in ("", "two\nlines", "x" * 501):
        with pytest.raises(BundleError, match=r"^licence="):
            write_bundle(file, Bundle(bundled["prior"], licence=licence))
    bad = replace(bundled["random"], seed=-1)  # type: ignore[type-var]
    with pytest.raises(BundleError, match="seed"):
        write_bundle(file, Bundle(bad))
    assert file.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["prior"]


# Hostile files


def take_apart(data: bytes) -> tuple[Facts, Stored]:
    length = int.from_bytes(data[:8], "little")
    facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["av1part"])
    del facts["sha256"]
    return facts, load(data)


def put_together(facts: Facts, stored: Stored) -> bytes:
    """Write a bundle whose hash of the facts fits, as whoever made it would."""
    digest = hashlib.sha256(canonical(facts).encode()).hexdigest()
    return save(stored, {"av1part": canonical({**facts, "sha256": digest})})


def refused(file: Path, words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        read_bundle(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda data: b"", "truncated or no safetensors"),
        (lambda data: data[:7], "truncated or no safetensors"),
        (lambda data: data[:-1], "refused"),
        (lambda data: data + b"\0", "refused"),
        (lambda data: b"PK\3\4" + data, "truncated or no safetensors"),
        (lambda data: b"\xff" * 8 + data[8:], "truncated or no safetensors"),
        (lambda data: with_header(data, b"{ "), "not JSON"),
        (lambda data: with_header(data, b"[" * 100_000), "not JSON"),
        (lambda data: with_header(data, b"[]"), "not a JSON object"),
        (lambda data: with_header(data, b"{}"), "is not a bundle"),
        (
            lambda data: with_header(data, header_of(data).replace(b"{", b'{"x":1,"x":1,', 1)),
            "twice",
        ),
        (lambda data: save(take_apart(data)[1]), "is not a bundle"),
        (lambda data: save(take_apart(data)[1], {"av1part": "{}"}), "SHA-256 of its facts"),
        (lambda data: save(take_apart(data)[1], {"av1part": '{"a":NaN}'}), "NaN"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(
    write: Callable[[bytes], bytes], words: str, files: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bad"
    file.write_bytes(write((files / "prior").read_bytes()))
    refused(file, words)


def header_of(data: bytes) -> bytes:
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def with_header(data: bytes, header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data[8 + len(header_of(data)) :]


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "huge"
    with file.open("wb") as out:
        out.write((17 << 20).to_bytes(8, "little"))
        out.truncate(20 << 20)
    refused(file, "its header, more than")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "does not exist")
    refused(tmp_path, "does not exist")


def facts_changed(path: str, value: Any) -> Callable[[Facts, Stored], None]:
    def change(facts: Facts, stored: Stored) -> None:
        inside: Any = facts
        *parents, last = path.split(".")
        for key in parents:
            inside = inside[int(key) if isinstance(inside, list) else key]
        inside[int(last) if isinstance(inside, list) else last] = value

    return change


def first_blob(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Facts, Stored], None]:
    """Change the first array, and name it by its new hash."""

    def apply(facts: Facts, stored: Stored) -> None:
        tensors = facts["tensors"]
        old = tensors[min(tensors)]
        new = change(stored.pop(old).copy())
        for name in [name for name, own in tensors.items() if own == old]:
            tensors[name] = sha256_array(new)
        stored[sha256_array(new)] = new

    return apply


def array_changed(
    name: str, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> Callable[[Facts, Stored], None]:
    """Change an array of the trees at 16x16, and name it by its new hash."""

    def apply(facts: Facts, stored: Stored) -> None:
        new = change(stored[facts["tensors"][f"16/{name}"]].copy())
        facts["tensors"][f"16/{name}"] = sha256_array(new)
        stored[sha256_array(new)] = new
        for digest in set(stored) - set(facts["tensors"].values()):
            del stored[digest]

    return apply


def in_a_circle(facts: Facts, stored: Stored) -> None:
    """Let an inner node be its own child, in place of a leaf that its parent gets."""

    def change(left: NDArray[Any]) -> NDArray[Any]:
        parent = next(i for i, child in enumerate(left) if child >= 0 and left[child] < 0)
        child = left[parent]
        left[parent], left[child] = left[child], child
        return left

    array_changed("left", change)(facts, stored)


def with_nan(array: NDArray[Any]) -> NDArray[Any]:
    array.flat[0] = np.nan
    return array


def extra(facts: Facts, stored: Stored) -> None:
    stored["0" * 64] = np.zeros(3)


def swapped(facts: Facts, stored: Stored) -> None:
    first, second = sorted(stored)[:2]
    stored[first], stored[second] = stored[second], stored[first]


def renamed(facts: Facts, stored: Stored) -> None:
    tensors = facts["tensors"]
    tensors["shares/16/300"] = tensors.pop(min(tensors))


def head_changed(
    change: Callable[[NDArray[Any]], NDArray[Any]],
) -> Callable[[Facts, Stored], None]:
    """Change an adapted head's weights, and name them by their new hash."""

    def apply(facts: Facts, stored: Stored) -> None:
        new = change(stored.pop(facts["tensors"]["adapted/16/weight"]).copy())
        facts["tensors"]["adapted/16/weight"] = sha256_array(new)
        stored[sha256_array(new)] = new

    return apply


def head_renamed(facts: Facts, stored: Stored) -> None:
    facts["tensors"]["adapted/128/bias"] = facts["tensors"].pop("adapted/16/bias")


STAGE = "content.cascades.16.stages.stage1"
CHANGES: list[tuple[str, Callable[[Facts, Stored], None], str]] = [
    ("prior", facts_changed("format", 2), "has format 2, av1part .* reads 1"),
    ("prior", facts_changed("format", True), "lacks or adds facts"),
    ("prior", facts_changed("kind", "forest"), "of kind 'forest'.*use a later av1part"),
    ("prior", facts_changed("kind", "cascade"), "does not describe a predictor of kind cascade"),
    ("prior", facts_changed("outside", "ignore"), "cannot be"),
    ("prior", facts_changed("name", "\x1b[2J"), "cannot be"),
    ("prior", facts_changed("more", 1), r"adds facts \(more\)"),
    ("prior", facts_changed("sources", [1]), "sources"),
    ("prior", facts_changed("domain.sizes", [16, 128]), "domain"),
    ("prior", facts_changed("domain.sizes", [8, 16]), "sizes of its domain"),
    ("prior", facts_changed("domain.qindexes", [220, 80]), "domain"),
    ("prior", facts_changed("domain.qindexes", [80]), "domain"),
    ("prior", facts_changed("domain.one_to_four", 1), "domain"),
    ("prior", facts_changed("domain.bit_depths", []), "domain"),
    ("prior", facts_changed("content.more", 1), "it has"),
    ("prior", renamed, "no table of a size and qindex"),
    ("prior", swapped, "SHA-256 of shares"),
    ("prior", extra, "does not hold the arrays that it names"),
    ("prior", first_blob(with_nan), "not finite"),
    ("prior", first_blob(lambda a: a * 2), "do not sum to 1"),
    ("prior", first_blob(lambda a: a[::-1].copy()), "types that cannot be there"),
    ("prior", first_blob(lambda a: a[:5].copy()), "shape"),
    ("prior", first_blob(lambda a: a.astype(np.float32)), "float32"),
    ("prior", first_blob(lambda a: a.astype(np.int32)), "is not of F16, F32, F64, I64"),
    ("variance", first_blob(lambda a: a[::-1].copy()), "edges are not in order"),
    ("random", facts_changed("content.seed", -1), "seed"),
    ("random", first_blob(lambda a: a * 0), "do not sum to 1"),
    ("adapted", facts_changed("domain.qindexes", [80, 220]), "not that of its network and labels"),
    ("adapted", facts_changed("domain.sizes", [16]), "not that of its network and labels"),
    ("adapted", facts_changed("content.more", 1), "it has"),
    ("adapted", facts_changed("content.adapted.base.more", 1), "it has"),
    ("adapted", facts_changed("content.adapted.clip.frames", 3), "frames or quantisers that"),
    ("adapted", facts_changed("content.adapted.clip.bit_depth", 7), "bit depth"),
    ("adapted", facts_changed("content.adapted.labels.frames", []), "no frames or quantisers"),
    ("adapted", facts_changed("content.adapted.labels.qindexes", [80, 256]), "that there are not"),
    ("adapted", facts_changed("content.adapted.labels", None), "does not describe"),
    ("adapted", facts_changed("content.adapted.sizes.128", {}), "sizes that there are not"),
    ("adapted", facts_changed("content.adapted.sizes.8.kept", True), "heads are not those"),
    ("adapted", facts_changed("content.adapted.sizes.8.kept", 0), "which heads were kept"),
    ("adapted", head_changed(lambda a: a[:, :-1].copy()), "head at 16 is of"),
    ("adapted", head_changed(lambda a: a.astype(np.float64)), "head at 16 is of"),
    ("adapted", head_changed(with_nan), "not finite"),
    ("adapted", head_renamed, "no head of a node size"),
    ("adapted", facts_changed("content.network.temperatures.16", 0.0), "is not in"),
    ("trees", facts_changed("content.features", 0), "features are of version 0"),
    ("trees", facts_changed("content.class_weights", "some"), "class weights"),
    ("trees", facts_changed("content.sizes.16.types", ["NONE"]), "types at 16"),
    ("trees", facts_changed("content.sizes.16.iterations", 1.5), "no numbers"),
    ("trees", facts_changed("content.sizes.16.more", 1), "it has"),
    ("trees", facts_changed("content.sizes", {}), "sizes of its domain"),
    ("trees", facts_changed("domain.sizes", [8]), "sizes of its domain"),
    ("trees", facts_changed("domain.one_to_four", True), "types at 16"),
    ("trees", array_changed("base", lambda a: a[:-1].copy()), "of 7 types|of a class"),
    ("trees", array_changed("feature", lambda a: a + 133), "none of 133"),
    ("trees", array_changed("feature", lambda a: -1 - a), "none of 133"),
    ("trees", array_changed("feature", lambda a: a[1:].copy()), "differ in length"),
    ("trees", array_changed("feature", lambda a: a.astype(np.float32)), "feature is of float32"),
    ("trees", array_changed("leaf", lambda a: a[:, None]), "leaf is of"),
    ("trees", array_changed("leaf", with_nan), "not finite"),
    ("trees", array_changed("leaf", lambda a: a[:-1].copy()), "exactly one"),
    ("trees", array_changed("left", lambda a: a * 0), "exactly one"),
    ("trees", array_changed("left", lambda a: a + 10**6), "exactly one"),
    ("trees", array_changed("root", lambda a: a + 1), "exactly one"),
    ("trees", array_changed("root", lambda a: a[1:].copy()), "differ in length"),
    ("trees", array_changed("tree_class", lambda a: a + 8), "class that is none of 8"),
    ("trees", in_a_circle, "before its parent"),
    ("cascade", facts_changed("domain.qindexes", [0, 255]), "not that of its stages"),
    ("cascade", facts_changed("content.cascades.16.threshold", 2.0), "is not in 0"),
    ("cascade", facts_changed("content.cascades.16.ensemble", "any"), "ensemble"),
    ("cascade", facts_changed("content.cascades.16.context", 4), "size, context or taxonomy"),
    ("cascade", facts_changed("content.cascades.16.taxonomy", "v9"), "taxonomy|v9"),
    ("cascade", facts_changed("content.cascades.16.partitions", []), "taxonomy"),
    ("cascade", facts_changed("content.cascades.32", {}), "it has"),
    ("cascade", facts_changed("content.cascades", {}), "nothing uses"),
    ("cascade", facts_changed(f"{STAGE}.temperatures", [0.0]), "is not in"),
    ("cascade", facts_changed(f"{STAGE}.temperatures", [1.0, 1.0]), "1 members"),
    ("cascade", facts_changed(f"{STAGE}.members", []), "0 members"),
    ("cascade", facts_changed(f"{STAGE}.classes", {"a": ["NONE"]}), "was trained on classes"),
    ("cascade", facts_changed(f"{STAGE}.members.0.backbone", {"width": 4096}), "another arch"),
    ("cascade", facts_changed(f"{STAGE}.members.0.backbone", {"weights": "/x"}), "describe"),
    ("cascade", facts_changed(f"{STAGE}.members.0.data", {}), "does not say its data's"),
    ("cascade", facts_changed(f"{STAGE}.members.0", []), "does not describe"),
]


@pytest.mark.parametrize(("kind", "change", "words"), CHANGES)
def test_other_values_are_refused(
    kind: str,
    change: Callable[[Facts, Stored], None],
    words: str,
    files: Path,
    tmp_path: Path,
) -> None:
    facts, stored = take_apart((files / kind).read_bytes())
    change(facts, stored)
    file = tmp_path / "bad"
    file.write_bytes(put_together(facts, stored))
    refused(file, words)


def test_weights_of_another_dtype_are_refused(files: Path, tmp_path: Path) -> None:
    facts, stored = take_apart((files / "cascade").read_bytes())
    first_blob(lambda a: a.astype(np.float64))(facts, stored)
    file = tmp_path / "bad"
    file.write_bytes(put_together(facts, stored))
    refused(file, "float64")


def test_a_network_of_huge_weights_gives_no_probabilities(files: Path, tmp_path: Path) -> None:
    facts, stored = take_apart((files / "cascade").read_bytes())
    variances = [name for name in facts["tensors"] if name.endswith("running_var")]
    for digest in {facts["tensors"][name] for name in variances}:
        bad = -10 - stored.pop(digest)
        for name in [name for name, own in facts["tensors"].items() if own == digest]:
            facts["tensors"][name] = sha256_array(bad)
        stored[sha256_array(bad)] = bad
    file = tmp_path / "bad"
    file.write_bytes(put_together(facts, stored))
    with pytest.raises(BundleError, match="bad computes no probabilities"):
        read_bundle(file).predict(PLANE, 8, 100)


@pytest.mark.filterwarnings("error")
def test_trees_of_huge_leaves_give_no_probabilities(files: Path, tmp_path: Path) -> None:
    facts, stored = take_apart((files / "trees").read_bytes())
    array_changed("leaf", lambda a: np.full_like(a, np.finfo(a.dtype).max))(facts, stored)
    file = tmp_path / "bad"
    file.write_bytes(put_together(facts, stored))
    with pytest.raises(BundleError, match="bad computes no probabilities"):
        read_bundle(file).predict(PLANE, 8, 100)


def test_one_array_under_many_names_takes_no_memory(files: Path, tmp_path: Path) -> None:
    facts, stored = take_apart((files / "prior").read_bytes())
    big = np.zeros(1 << 18)
    stored[sha256_array(big)] = big
    facts["tensors"] |= {f"more/{number}": sha256_array(big) for number in range(60)}
    file = tmp_path / "bad"
    file.write_bytes(put_together(facts, stored))
    refused(file, "more than 32 times itself")


@pytest.mark.parametrize("kind", ["prior", "cascade", "trees"])
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_byte_is_refused_or_changes_nothing(
    kind: str, data: st.DataObject, files: Path, tmp_path: Path
) -> None:
    whole = (files / kind).read_bytes()
    head = 8 + len(header_of(whole))
    at = data.draw(st.one_of(st.integers(0, len(whole) - 1), st.integers(0, head)))
    flip = data.draw(st.integers(1, 255))
    file = tmp_path / "bad"
    file.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    with suppress(BundleError):
        bundle = read_bundle(file)
        # A space before the arrays became another white space.
        assert write_bundle(tmp_path / "again", bundle).read_bytes() == whole


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.floats(0, 1), st.sampled_from(KIND_NAMES), st.sampled_from(KIND_NAMES))
def test_a_truncated_or_spliced_file_is_refused(
    files: Path, tmp_path: Path, share: float, first: str, second: str
) -> None:
    one, other = ((files / kind).read_bytes() for kind in (first, second))
    cut = int(share * (len(one) - 1))
    file = tmp_path / "bad"
    file.write_bytes(one[:cut])
    refused(file, "bundle")
    spliced = one[:cut] + other[min(cut, len(other)) :]
    if spliced not in (one, other):
        file.write_bytes(spliced)
        refused(file, "bundle")
