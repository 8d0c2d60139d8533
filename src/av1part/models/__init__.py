"""Networks and losses: pure torch.nn, no Lightning."""
