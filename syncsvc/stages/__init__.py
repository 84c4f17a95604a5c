"""The steps of a cycle: they act, and do not import each other."""
