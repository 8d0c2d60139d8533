"""A dataset on disk: its schema, its reader and writer, its splits."""
