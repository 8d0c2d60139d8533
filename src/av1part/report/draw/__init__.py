"""Figures: arrays in, a matplotlib figure or a Vega-Lite chart out."""
