"""Partition types against tables typed from the AV1 specification and against painted blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from av1part.partition import (
    IGNORED,
    RECTANGLES,
    SIZES,
    SYMMETRIES,
    TAXONOMIES,
    Partition,
    Stage,
    Symmetry,
    Taxonomy,
    cut_lines,
    legal_partitions,
    partition_from_rects,
    taxonomy,
)

P = Partition
partitions = st.sampled_from(list(Partition))
symmetries = st.sampled_from(SYMMETRIES)
taxonomies = st.sampled_from(
    [*TAXONOMIES.values(), *(tree.at(size) for tree in TAXONOMIES.values() for size in SIZES)]
)

# Typed, not derived from the rectangles: what each symmetry changes; the other types stay.
LEFT_RIGHT = {P.VERT_A: P.VERT_B, P.VERT_B: P.VERT_A}
TOP_BOTTOM = {P.HORZ_A: P.HORZ_B, P.HORZ_B: P.HORZ_A}
TRANSPOSE = {
    P.HORZ: P.VERT,
    P.VERT: P.HORZ,
    P.HORZ_A: P.VERT_A,
    P.VERT_A: P.HORZ_A,
    P.HORZ_B: P.VERT_B,
    P.VERT_B: P.HORZ_B,
    P.HORZ_4: P.VERT_4,
    P.VERT_4: P.HORZ_4,
}


def paint(partition: Partition) -> NDArray[np.int64]:
    """A 4x4 picture in which each rectangle of the type has its own number from 1."""
    picture = np.zeros((4, 4), dtype=np.int64)
    for number, (row, col, height, width) in enumerate(RECTANGLES[partition], start=1):
        picture[row : row + height, col : col + width] += number
    return picture


def regions(picture: NDArray[np.int64]) -> set[bytes]:
    """The masks of a picture's numbers, whatever the numbers are."""
    return {(picture == number).tobytes() for number in np.unique(picture)}


def transform(picture: NDArray[np.int64], symmetry: Symmetry) -> NDArray[np.int64]:
    """The same symmetry by numpy alone."""
    if symmetry.transpose:
        picture = picture.T
    if symmetry.top_bottom:
        picture = np.flipud(picture)
    if symmetry.left_right:
        picture = np.fliplr(picture)
    return np.ascontiguousarray(picture)


def test_ids_are_those_of_the_specification() -> None:
    names = [
        "NONE",
        "HORZ",
        "VERT",
        "SPLIT",
        "HORZ_A",
        "HORZ_B",
        "VERT_A",
        "VERT_B",
        "HORZ_4",
        "VERT_4",
    ]
    assert {p.name: int(p) for p in Partition} == {n: i for i, n in enumerate(names)}


@pytest.mark.parametrize(
    ("partition", "picture"),
    [
        (P.NONE, "1111 1111 1111 1111"),
        (P.HORZ, "1111 1111 2222 2222"),
        (P.VERT, "1122 1122 1122 1122"),
        (P.SPLIT, "1122 1122 3344 3344"),
        (P.HORZ_A, "1122 1122 3333 3333"),
        (P.HORZ_B, "1111 1111 2233 2233"),
        (P.VERT_A, "1133 1133 2233 2233"),
        (P.VERT_B, "1122 1122 1133 1133"),
        (P.HORZ_4, "1111 2222 3333 4444"),
        (P.VERT_4, "1234 1234 1234 1234"),
    ],
)
def test_rectangles_look_as_in_the_specification(partition: Partition, picture: str) -> None:
    drawn = np.array([[int(c) for c in line] for line in picture.split()])
    np.testing.assert_array_equal(paint(partition), drawn)


@pytest.mark.parametrize("partition", Partition)
def test_rectangles_tile_the_block(partition: Partition) -> None:
    cover = np.zeros((4, 4), dtype=np.int64)
    for row, col, height, width in RECTANGLES[partition]:
        cover[row : row + height, col : col + width] += 1
    assert (cover == 1).all()
    assert sum(h * w for _, _, h, w in RECTANGLES[partition]) == 16


@pytest.mark.parametrize(
    ("symmetry", "moved"),
    [
        (Symmetry(), {}),
        (Symmetry(left_right=True), LEFT_RIGHT),
        (Symmetry(top_bottom=True), TOP_BOTTOM),
        (Symmetry(transpose=True), TRANSPOSE),
    ],
)
def test_symmetries_map_types_as_the_contract_says(
    symmetry: Symmetry, moved: dict[Partition, Partition]
) -> None:
    assert {p: symmetry.partition(p) for p in Partition} == {p: moved.get(p, p) for p in Partition}


def test_quarter_turn_is_a_transpose_and_a_mirror() -> None:
    picture = np.arange(16).reshape(4, 4)
    clockwise = Symmetry(transpose=True, left_right=True)
    np.testing.assert_array_equal(transform(picture, clockwise), np.rot90(picture, -1))
    assert clockwise.partition(P.HORZ_A) is P.VERT_B
    assert clockwise.partition(P.VERT_B) is P.HORZ_B


@given(partitions, symmetries)
def test_moved_picture_is_the_picture_of_the_moved_type(
    partition: Partition, symmetry: Symmetry
) -> None:
    moved = transform(paint(partition), symmetry)
    assert regions(moved) == regions(paint(symmetry.partition(partition)))
    assert symmetry.table[partition] == symmetry.partition(partition)


@given(symmetries, symmetries)
def test_symmetries_are_closed_and_their_tables_compose(first: Symmetry, then: Symmetry) -> None:
    picture = np.arange(16).reshape(4, 4)
    moved = transform(transform(picture, first), then)
    both = [s for s in SYMMETRIES if np.array_equal(transform(picture, s), moved)]
    assert len(both) == 1
    np.testing.assert_array_equal(then.table[first.table], both[0].table)


def test_there_are_eight_symmetries_and_the_first_is_the_identity() -> None:
    picture = np.arange(16).reshape(4, 4)
    assert len({transform(picture, s).tobytes() for s in SYMMETRIES}) == len(SYMMETRIES) == 8
    np.testing.assert_array_equal(SYMMETRIES[0].table, np.arange(10))


@given(symmetries)
def test_tables_permute_the_types(symmetry: Symmetry) -> None:
    assert symmetry.table.dtype == np.int64
    assert sorted(symmetry.table) == list(range(10))


def test_rectangles_of_no_type_are_refused() -> None:
    with pytest.raises(ValueError, match="no partition type"):
        partition_from_rects(frozenset({(0, 0, 4, 1), (0, 1, 4, 3)}))


@pytest.mark.parametrize("partition", Partition)
def test_type_is_found_by_its_rectangles_in_any_order(partition: Partition) -> None:
    assert partition_from_rects(frozenset(reversed(RECTANGLES[partition]))) is partition


@pytest.mark.parametrize(("size", "count"), [(8, 4), (16, 10), (32, 10), (64, 10), (128, 8)])
def test_legal_types_by_size(size: int, count: int) -> None:
    assert legal_partitions(size) == tuple(Partition)[:count]
    assert legal_partitions(size, one_to_four=False) == tuple(Partition)[: min(count, 8)]


@pytest.mark.parametrize("size", [0, 4, 12, 256])
def test_other_sizes_have_no_types(size: int) -> None:
    assert size not in SIZES
    with pytest.raises(ValueError, match=f"size {size}"):
        legal_partitions(size)


@given(st.sampled_from([8, 16, 32, 64, 128]), st.booleans(), symmetries)
def test_legal_types_stay_legal_under_symmetries(
    size: int, one_to_four: bool, symmetry: Symmetry
) -> None:
    legal = legal_partitions(size, one_to_four=one_to_four)
    assert {symmetry.partition(p) for p in legal} == set(legal)


V6_CLASSES = {
    "stage1": ("NONE", "PARTITION"),
    "stage2": ("SPLIT", "RECT", "AB"),
    "stage3_rect": ("HORZ", "VERT"),
    "stage3_ab": ("HORZ_A", "HORZ_B", "VERT_A", "VERT_B"),
}


def test_v6_is_as_published() -> None:
    v6 = taxonomy("v6")
    assert {s.name: s.class_names for s in v6.stages} == V6_CLASSES
    assert v6.partitions == tuple(Partition)[:8]
    I = IGNORED  # noqa: E741, N806 - a column of a table
    assert {s.name: s.labels.tolist() for s in v6.stages} == {
        #              NONE HORZ VERT SPLIT HA HB VA VB H4 V4
        "stage1": [0, 1, 1, 1, 1, 1, 1, 1, I, I],
        "stage2": [I, 1, 1, 0, 2, 2, 2, 2, I, I],
        "stage3_rect": [I, 0, 1, I, I, I, I, I, I, I],
        "stage3_ab": [I, I, I, I, 0, 1, 2, 3, I, I],
    }


def test_v6_1to4_adds_a_fourth_class_and_a_stage() -> None:
    wide = taxonomy("v6_1to4")
    assert {s.name: s.class_names for s in wide.stages} == {
        **V6_CLASSES,
        "stage2": ("SPLIT", "RECT", "AB", "1TO4"),
        "stage3_1to4": ("HORZ_4", "VERT_4"),
    }
    assert wide.partitions == tuple(Partition)


@pytest.mark.parametrize("name", TAXONOMIES)
def test_an_8x8_node_has_no_ab_and_no_1to4(name: str) -> None:
    small = taxonomy(name).at(8)
    assert {s.name: s.class_names for s in small.stages} == {
        "stage1": ("NONE", "PARTITION"),
        "stage2": ("SPLIT", "RECT"),
        "stage3_rect": ("HORZ", "VERT"),
    }
    with pytest.raises(ValueError, match="no stage 'stage3_ab' at 8x8; it has stage1, stage2, "):
        small.stage("stage3_ab")


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("name", TAXONOMIES)
def test_larger_nodes_have_every_type(name: str, size: int) -> None:
    tree = taxonomy(name)
    assert tree.at(size).stages == tree.stages


@given(st.sampled_from(list(TAXONOMIES)), st.sampled_from(SIZES))
def test_a_sized_taxonomy_covers_what_is_legal(name: str, size: int) -> None:
    tree = taxonomy(name)
    assert set(tree.at(size).partitions) == set(tree.partitions) & set(legal_partitions(size))


def test_a_size_no_dataset_has_is_refused() -> None:
    with pytest.raises(ValueError, match="sizes 8, 16, 32, 64, got 128"):
        taxonomy("v6").at(128)


@given(taxonomies)
def test_classes_of_a_stage_are_disjoint_and_make_up_its_population(tree: Taxonomy) -> None:
    for stage in tree.stages:
        members = [p for types in stage.classes.values() for p in types]
        assert len(members) == len(set(members))
        assert stage.population == set(members)
        assert {p for p in Partition if stage.labels[p] != IGNORED} == stage.population


@given(taxonomies)
def test_labels_and_types_invert_each_other(tree: Taxonomy) -> None:
    for stage in tree.stages:
        for index, types in enumerate(stage.classes.values()):
            assert {p for p in Partition if stage.labels[p] == index} == set(types)
            expected = types[0] if len(types) == 1 else IGNORED
            assert stage.partitions[index] == expected


@given(taxonomies, partitions)
def test_the_cascade_leads_every_covered_type_to_itself(
    tree: Taxonomy, partition: Partition
) -> None:
    stage, steps = tree.root, 0
    if partition not in tree.partitions:
        assert stage.labels[partition] == IGNORED
        return
    while True:
        index = stage.labels[partition]
        child = tree.child(stage, stage.class_names[index])
        if child is None:
            break
        assert child.population == set(stage.classes[stage.class_names[index]])
        stage, steps = child, steps + 1
    assert stage.partitions[index] == partition
    assert steps <= 2


def test_names_follow_the_ids() -> None:
    assert taxonomy("v6").names == tuple(p.name for p in list(Partition)[:8])


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no taxonomy 'v7'; there are v6, v6_1to4"):
        taxonomy("v7")
    with pytest.raises(ValueError, match=r"v6 has no stage 'stage4'; it has stage1, stage2"):
        taxonomy("v6").stage("stage4")


@pytest.mark.parametrize("partition", Partition)
def test_cut_lines_are_where_a_painted_block_changes(partition: Partition) -> None:
    picture = paint(partition)
    across = {((r, c), (r + 1, c)) for r, c in np.argwhere(np.diff(picture, axis=0) != 0)}
    along = {((r, c), (r, c + 1)) for r, c in np.argwhere(np.diff(picture, axis=1) != 0)}
    assert cut_lines(partition) == across | along


def specialists(tree: Taxonomy) -> list[Stage]:
    """The stages of a taxonomy whose classes are single types of the same cut length."""
    return [s for s in tree.stages if s.name.startswith("stage3")]


@given(taxonomies)
def test_soft_labels_of_own_types_are_their_classes(tree: Taxonomy) -> None:
    for stage in tree.stages:
        np.testing.assert_allclose(stage.targets.sum(1), 1)
        for p in stage.population:
            assert stage.targets[p].tolist() == np.eye(len(stage.classes))[stage.labels[p]].tolist()


def test_soft_labels_of_foreign_types_share_the_nearest_classes() -> None:
    """Typed by hand from pictures of the types."""
    wide = taxonomy("v6_1to4")
    #           NONE SPLIT   like HORZ         like VERT
    expected = {
        "stage3_rect": ([0.5, 0.5], [1, 0], [0, 1]),
        "stage3_ab": ([0.25] * 4, [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]),
        "stage3_1to4": ([0.5, 0.5], [1, 0], [0, 1]),
    }
    for stage in specialists(wide):
        for p in set(P) - stage.population:
            kind = 0 if p in (P.NONE, P.SPLIT) else 1 + p.name.startswith("VERT")
            assert stage.targets[p].tolist() == expected[stage.name][kind], p


@given(taxonomies, partitions, symmetries)
def test_soft_labels_turn_with_the_block(
    tree: Taxonomy, partition: Partition, symmetry: Symmetry
) -> None:
    for stage in specialists(tree):
        turned = stage.targets[symmetry.partition(partition)]
        for index, (own,) in enumerate(stage.classes.values()):
            assert turned[stage.labels[symmetry.partition(own)]] == stage.targets[partition][index]


@given(taxonomies)
def test_every_stage_but_the_root_has_a_parent_that_sends_its_population(tree: Taxonomy) -> None:
    assert tree.parent(tree.root) is None
    for stage in tree.stages[1:]:
        parent = tree.parent(stage)
        assert parent is not None
        sender, index = parent
        assert {p for p in Partition if sender.labels[p] == index} == stage.population
