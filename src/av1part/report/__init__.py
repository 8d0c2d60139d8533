"""Tables, plots and pages, from run folders alone."""

from av1part.report.page import ReportFiles, write_report, write_run_plots

__all__ = ["ReportFiles", "write_report", "write_run_plots"]
