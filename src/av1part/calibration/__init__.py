"""Temperatures and thresholds: how they are fitted, stored beside checkpoints, and used again."""
