"""One training run: settings to a verified run folder."""
