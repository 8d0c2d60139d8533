"""From videos and pictures to labelled nodes: read, encode, inspect, store."""
