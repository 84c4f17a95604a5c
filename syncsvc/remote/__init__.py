"""The only doors to the network."""
