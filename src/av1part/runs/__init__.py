"""The run folder: its schema, its writers and its readers."""
