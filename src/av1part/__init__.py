"""Trustworthy experiments on predicting how AV1 cuts its blocks."""

from importlib.metadata import version

__version__ = version("av1part")
