"""LightningModules: one base, one thin class per stage of the cascade."""
