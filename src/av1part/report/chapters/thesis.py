"""The section of a thesis on a sweep: method, protocol, results, limits, from the folders alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av1part.metrics.statistics import LEVEL
from av1part.options import WITH_ADAPTERS
from av1part.report.chapters.common import protocol_facts
from av1part.report.chapters.comparison import differing_settings
from av1part.report.chapters.sweep import (
    caveats,
    defective_variants,
    sweep_figures,
    sweep_tables,
    sweep_verdict,
)
from av1part.report.render.document import (
    Chapter,
    Document,
    Facts,
    Picture,
    Prose,
    Section,
)
from av1part.report.render.latex import document_latex
from av1part.report.render.markdown import document_markdown
from av1part.report.render.tables import EMPTY_CELL, Table, count, percent, table
from av1part.report.sweep import Sweep
from av1part.system.files import write_text

_FEW_PICTURES = 10
"""Below so many val pictures a bootstrap over them is optimistic, see `intervals`."""

_DESCRIBED = (
    ("Backbone", ("backbone.",)),
    ("Head", ("head.",)),
    ("Loss", ("loss.",)),
    ("Optimizer", ("optimizer.",)),
    ("Schedule", ("scheduler.", "trainer.max_epochs", "callbacks.patience")),
    ("Batches", ("data.batch_size", "data.sampling", "data.augment", "data.noise", "data.mixup")),
    ("Input", ("data.size", "data.context", "conditioning")),
    ("Arithmetic", ("trainer.precision",)),
)
"""What a reader needs to repeat the training, and the settings that hold it."""

_OF_ADAPTERS = ("adapter.", "optimizer.lr.adapters")
"""Settings without effect where there are no adapters."""


def write_thesis(sweep: Sweep, out: Path) -> tuple[Path, Path]:
    """Write the section.

    Args:
        sweep: The sweep.
        out: Folder of the report; the section refers to its `plots/` and `figures/`.

    Returns:
        `thesis.md`, and `thesis.tex` to be included; it needs booktabs, graphicx and textcomp.
    """
    subtitle = "Written by av1part from run folders alone."
    document = Document(sweep.experiment, subtitle, (thesis_chapter(sweep),))
    files = out / "thesis.md", out / "thesis.tex"
    write_text(files[0], document_markdown(document))
    write_text(files[1], document_latex(document, sweep.slug))
    return files


def thesis_chapter(sweep: Sweep) -> Chapter:
    """Write the chapter: method, protocol, results, limits."""
    tables = sweep_tables(sweep)
    drawn = {name: caption for name, (_, caption) in sweep_figures(sweep).items()}
    curves = Picture("curves", drawn["curves"], "", wide=True)
    classes = Picture("classes", drawn["classes"], "", wide=False)
    return Chapter(
        "thesis",
        sweep.experiment,
        (
            Section(
                "Method",
                (
                    *defective_variants(sweep),
                    *(Prose(_method(sweep)), _settings(sweep), _variants(sweep)),
                ),
            ),
            Section("Protocol", (Prose(_protocol(sweep)), _data(sweep))),
            Section(
                "Results",
                (
                    Prose(sweep_verdict(sweep)),
                    *tables.values(),
                    curves,
                    classes,
                ),
            ),
            Section("Limits", tuple(Prose(limit) for limit in thesis_limits(sweep))),
        ),
    )


def _method(sweep: Sweep) -> str:
    names = ", ".join(sweep.class_names)
    run = sweep.variants[0].members[0].run
    chosen = "lowest log loss" if sweep.by_log_loss else "highest macro-F1"
    return (
        f"{len(sweep.variants)} variants of a classifier for {run.stage} ({names}) were trained. "
        "They share all settings but those of the second table. A variant's checkpoint with the "
        f"{chosen} on the validation split was kept; every checkpoint was read back from "
        "disk, compared tensor by tensor, and validated anew before it counted as saved."
    )


def _common(sweep: Sweep) -> dict[str, Any]:
    """Return the settings that all runs share."""
    runs = [member.run for variant in sweep.variants for member in variant.members]
    differing = set(differing_settings(runs))
    return {key: value for key, value in runs[0].settings.items() if key not in differing}


def _settings(sweep: Sweep) -> Facts:
    common = _common(sweep)
    pairs = []
    for what, prefixes in _DESCRIBED:
        settings = [
            f"`{key.removeprefix(prefixes[0]) or key.rpartition('.')[2]}` {_shown(value)}"
            for key, value in common.items()
            if key.startswith(prefixes) and value is not None
        ]
        if settings:
            pairs.append((what, ", ".join(settings)))
    return Facts(tuple(pairs))


def _variants(sweep: Sweep) -> Table:
    runs = [member.run for variant in sweep.variants for member in variant.members]
    keys = [key for key in differing_settings(runs) if _tells_variants(sweep, key)]
    rows = []
    for variant in sweep.variants:
        settings = variant.members[0].run.settings
        unused = () if settings.get("method.name") in WITH_ADAPTERS else _OF_ADAPTERS
        own = [
            f"`{k}` {_shown(settings[k])}"
            for k in keys
            if settings.get(k) is not None and not k.startswith(unused)
        ]
        trained = variant.number("trainable_parameters")
        share = trained / variant.number("total_parameters")
        rows.append([variant.name, count(trained), percent(share), ", ".join(own) or EMPTY_CELL])
    return table(
        "The variants: trained parameters, their share in percent, and the settings in which "
        "variants differ.",
        ("<Variant", "Trained", "Share", "<Settings"),
        rows,
    )


def _tells_variants(sweep: Sweep, key: str) -> bool:
    """Return whether a setting is the same in all members of each variant: of no fold."""
    return all(
        len({str(member.run.settings.get(key)) for member in variant.members}) == 1
        for variant in sweep.variants
    )


def _protocol(sweep: Sweep) -> str:
    members = sorted({member.name for variant in sweep.variants for member in variant.members})
    without = f", of which {len(sweep.missing)} have no result" if sweep.missing else ""
    tested = (
        f" Each variant is compared with `{sweep.baseline}` by a paired two-sided t test over "
        "these runs, corrected by Holm for all comparisons."
        if sweep.baseline
        else ""
    )
    tested_on = "No opening of the test split is recorded."
    if sweep.test is not None:
        times = ", ".join(opening.text("at") for opening in sweep.test.items("opened"))
        tested_on = f"The test split was opened {times}, by a command that records it."
    return (
        f"A variant was trained {len(members)} times ({', '.join(members)}){without}. Means are "
        f"given with {LEVEL:.0%} intervals by Student's t.{tested}{_start(sweep)} {tested_on}"
    )


def _start(sweep: Sweep) -> str:
    """Return which runs start from Stage 1; nothing if none does."""
    scratch = [
        f"`{variant.name}`"
        for variant in sweep.variants
        if not all(member.run.settings.get("stage1") for member in variant.members)
    ]
    if len(scratch) == len(sweep.variants):
        return ""
    who = f"All runs but those of {', '.join(scratch)}" if scratch else "Runs"
    return f" {who} start from a Stage-1 backbone that was trained on their own training split."


def _data(sweep: Sweep) -> Facts:
    runs = [member.run for variant in sweep.variants for member in variant.members]

    def fact(key: str) -> str:
        values = sweep.dataset_facts(key)
        return _shown(values[0]) if len(values) == 1 else "differs between the runs"

    nodes = {f"{run.confusion.sum():,} of {run.predictions.sequences} pictures" for run in runs}
    deltas = [variant.reload_delta for variant in sweep.variants]
    known = [delta for delta in deltas if delta is not None]
    pairs = [
        *protocol_facts("val", fact("split")),
        ("Training nodes by class", fact("class_counts")),
        ("Validation nodes", "; ".join(sorted(nodes))),
        ("qindex", fact("qindex")),
        ("Dataset (SHA-256 of its manifest)", fact("manifest_sha256")),
        ("Split (SHA-256)", fact("split_sha256")),
        (
            "Largest difference of a reloaded checkpoint",
            f"{max(known):.2f} points" if len(known) == len(deltas) else EMPTY_CELL,
        ),
        ("Code", f"commit `{sweep.commit or runs[0].environment.get('git_commit')}`"),
        ("Versions", _shown(runs[0].environment.get("versions"))),
    ]
    return Facts(tuple((term, value) for term, value in pairs if value != EMPTY_CELL))


def thesis_limits(sweep: Sweep) -> list[str]:
    """List what the figures do not show."""
    runs = [member.run for variant in sweep.variants for member in variant.members]
    pictures = min(run.predictions.sequences for run in runs)
    sentences = []
    if sweep.same_nodes:
        sentences.append(
            "All runs share one split: the intervals over seeds cover other seeds, "
            "not other pictures."
        )
    elif any(member.name.startswith("fold-") for v in sweep.variants for member in v.members):
        sentences.append(
            "Seeds of one fold share its pictures, which the t test ignores: with few folds "
            "its intervals are somewhat too narrow for other pictures."
        )
    else:
        sentences.append(
            "The variants were validated on different nodes, so that a difference is one of the "
            "data as much as of the model."
        )
    sentences += caveats(sweep)
    if pictures < _FEW_PICTURES:
        sentences.append(
            f"Validation rests on {pictures} pictures; other content may differ more than these "
            "pictures differ among themselves."
        )
    if min(len(v.members) for v in sweep.variants) < 5:
        sentences.append("With fewer than five runs a variant, small differences stay undetected.")
    if sweep.missing:
        sentences.append(f"{len(sweep.missing)} planned runs have no result and are left out.")
    sentences.append(
        "The epoch and the variant were chosen on the same validation nodes, so the best figures "
        "are optimistic; the test split is for the one variant that is finally reported."
    )
    return sentences


def _shown(value: Any) -> str:
    if value is None:
        return EMPTY_CELL
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)
