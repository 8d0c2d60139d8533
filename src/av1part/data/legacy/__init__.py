"""The study's own data layouts: read once, strictly, into a store; never imitated."""
