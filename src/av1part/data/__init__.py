"""Labels in, batches out: from a source video to 16x16 block tensors."""
