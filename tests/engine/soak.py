"""Whether the long forms of the proofs are wanted: `make soak` sets SYNCSVC_SOAK."""

from __future__ import annotations

import os

SOAK = bool(os.environ.get("SYNCSVC_SOAK"))
