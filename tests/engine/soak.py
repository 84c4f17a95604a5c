"""Whether the long forms of the proofs are wanted, and how they count what they show.

`make soak` sets SYNCSVC_SOAK. The fixture `proven` is of this kind: cases of a kind that held.
"""

from __future__ import annotations

import os
from collections.abc import Callable

SOAK = bool(os.environ.get("SYNCSVC_SOAK"))
Proven = Callable[[str, int], None]
LONG = 7200 if SOAK else 900
"""Seconds after which a proof hangs for certain: many times what it takes."""
