"""Tables, plots and pages, from run folders alone."""

from av1part.report.encodes import is_encodes
from av1part.report.page import ReportFiles, write_encodes_report, write_report, write_run_plots
from av1part.report.sweep import publish_sweep

__all__ = [
    "ReportFiles",
    "is_encodes",
    "publish_sweep",
    "write_encodes_report",
    "write_report",
    "write_run_plots",
]
