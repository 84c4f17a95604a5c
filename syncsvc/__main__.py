"""Runs the commands: by `syncsvc`, and by `python -m syncsvc`."""

from __future__ import annotations

import gc

# A start makes 200,000 objects that stay. To look for garbage among them takes a tenth of its time, and makes
# every later look longer.
gc.disable()

from syncsvc.cli import main  # noqa: E402 - what the line above is for

gc.freeze()
gc.enable()

__all__ = ["main"]

if __name__ == "__main__":
    main(prog_name="syncsvc")
