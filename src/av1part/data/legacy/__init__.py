"""The study's own data layouts, read strictly and imported into a store."""
