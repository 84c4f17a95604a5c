"""Runs the commands: by `syncsvc`, and by `python -m syncsvc`."""

from __future__ import annotations

import gc

gc.set_threshold(
    50_000
)  # a start makes many objects and no garbage: to look for it takes a fifth of the time

from syncsvc.cli import main  # noqa: E402 - what the line above is for

__all__ = ["main"]

if __name__ == "__main__":
    main(prog_name="syncsvc")
