"""The encoder in the loop: hints of what to search, the patched encoder that takes them."""
