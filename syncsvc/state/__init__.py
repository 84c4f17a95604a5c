"""What is remembered: every table and every query."""
