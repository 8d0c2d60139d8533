"""What every package may use: errors, files, locks, logs, signals, and what this machine runs."""
