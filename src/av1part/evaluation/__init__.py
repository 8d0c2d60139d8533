"""Evaluation of trained stages: attaching data, computing logits, scoring them."""
