"""What happens around training: verified checkpoints, freeze guard, history, warnings."""
