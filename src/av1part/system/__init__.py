"""Errors, files, locks, logs, signals and this machine: for every other package to use."""
