"""Tables, plots and pages, from run folders alone."""

from av1part.report.page import ReportFiles, write_report, write_run_plots
from av1part.report.sweep import publish_sweep

__all__ = ["ReportFiles", "publish_sweep", "write_report", "write_run_plots"]
