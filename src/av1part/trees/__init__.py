"""Boosted trees on luma features: the peer that every network is compared with."""
