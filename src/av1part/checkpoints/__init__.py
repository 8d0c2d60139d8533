"""Checkpoint files: loading, contents, and the calibration stored beside them."""
