"""What is left of a day's calls to the other applications of an account."""

from __future__ import annotations

from syncsvc.errors import TransientError
from syncsvc.remote.transport import Network
from syncsvc.settings import Reserve, reserved_calls


def spare(network: Network, reserve: Reserve, *, believed: float, calls: str, until: str) -> None:
    """Raise TransientError while no more calls are left than the reserve; now and then one call looks.

    What the CRM told of its calls (`network.allowance`) is believed for that many seconds. `calls` says
    whose calls those of the day are, and `until` when there are more.
    """
    told = network.allowance
    if told is None:
        return
    kept = reserved_calls(reserve, told.allowed)
    seconds = believed - (network.now() - told.told_at).total_seconds()
    if told.left <= kept and seconds > 0:
        raise TransientError(
            f"{told.left} of the {told.allowed} {calls} are left, and the last {kept} are kept for its other "
            f"apps (reserve): work goes on {until}",
            retry_after=seconds,
        )
