"""Batches from a dataset: blocks, augmentation, injected errors, the LightningDataModule."""
