"""`av1part report`: tables, plots and one page from run folders."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from av1part.report import is_encodes, publish_sweep, write_report
from av1part.runs.compared import is_compared
from av1part.system.files import expanded


def run(verb: str, cfg: DictConfig, words: Sequence[str]) -> None:
    """Write the report and print where it is."""
    folders = [expanded(word) for word in words]
    whole = is_encodes(folders[0]) or is_compared(folders[0])
    beside = folders[0] if whole else folders[0] / "report"
    out = beside if cfg.out is None else expanded(cfg.out)
    if cfg.publish is not None:
        publish_sweep(folders, expanded(cfg.publish), predictions=cfg.predictions)
        print("published:", cfg.publish)
    files = write_report(folders, out, thesis=cfg.thesis)
    print("report:", "\n        ".join(map(str, (files.html, files.markdown, *files.thesis))))
