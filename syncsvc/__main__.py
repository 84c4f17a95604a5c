"""Runs the commands by `python -m syncsvc`."""

from __future__ import annotations

from syncsvc.cli import main

main(prog_name="syncsvc")
