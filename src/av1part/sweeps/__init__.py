"""Sweeps: from a plan to jobs, from what lies in their folders to what is still to be run."""
