"""A trained stage on data: attaching the data, running the stage, scoring it."""
