"""Simulators of the three remote APIs, their faults, and the demo."""
