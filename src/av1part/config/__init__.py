"""The configuration: every option with its default, range and choices, and its composition."""
