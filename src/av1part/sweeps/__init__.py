"""Sweeps: the jobs of a plan, their state, running those without a result, and opening test."""
