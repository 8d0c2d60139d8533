"""Tables, plots and pages, from run folders alone."""

from av1part.report.compared import write_compared_report
from av1part.report.encodes import is_encodes
from av1part.report.files import ReportFiles
from av1part.report.page import write_encodes_report, write_report, write_run_plots
from av1part.report.sweep import publish_sweep

__all__ = [
    "ReportFiles",
    "is_encodes",
    "publish_sweep",
    "write_compared_report",
    "write_encodes_report",
    "write_report",
    "write_run_plots",
]
