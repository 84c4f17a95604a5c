"""Brakes: what trips them is held, what is within the limits flows, and a release lets a hold go once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from syncsvc.config import BrakesConfig
from syncsvc.rules.brakes import (
    Allowed,
    Brake,
    Totals,
    Tripped,
    allowed_by,
    depends_on_log,
    judge_delivery,
    judge_elsewhere,
    judge_leaving,
    judge_members,
    judge_sweep,
)
from syncsvc.state.holds import Holds
from syncsvc.state.outbox import Outbox
from syncsvc.state.write_backs import WriteBacks


class Brakes:
    """The brakes of one cycle; `held_by` names those that hold, `allowed` is what a delivery may send."""

    def __init__(
        self,
        holds: Holds,
        limits: BrakesConfig,
        *,
        now: Callable[[], datetime],
        tell: Callable[[str, Tripped], None],
    ) -> None:
        """Judge by `limits`; `tell` is called with the name of a brake and its numbers when it is news."""
        self._holds = holds
        self._limits = limits
        self._now = now
        self._tell = tell
        self._released: list[str] = []
        self._let_go: dict[str, int] = {}
        self.held_by: list[str] = []
        self.allowed = Allowed()

    def judge_sweep(self, connector: str, *, known: int, missing: int, partial: bool) -> bool:
        """Return whether contacts that a complete sweep did not find may be taken for gone.

        They may not where it was `partial`, unless a person who saw how many they are has released them.
        """
        tripped = judge_sweep(known=known, missing=missing, max_gone_share=self._limits.max_gone_share)
        if tripped is None:
            self._end_hold(connector)
            return not partial
        held = self._hold([tripped], f":{connector}")
        if not held:
            self._end_hold(connector)
        return not held

    def sweep_released(self, connector: str) -> bool:
        """Return whether a person let what a sweep of this connector did not find be gone."""
        name = f"{Brake.GONE_SHARE}:{connector}"
        return any(it.brake == name and it.released_by is not None for it in self._holds.open())

    def _end_hold(self, connector: str) -> None:
        """Let a hold end with its sweep; one that was released lasts until the members it let go are sent."""
        name = f"{Brake.GONE_SHARE}:{connector}"
        self._let_go |= {
            it.brake: it.amount
            for it in self._holds.open()
            if it.brake == name and it.released_by is not None
        }
        if name not in self._let_go:
            self._holds.lapse([name], now=self._now())

    def judge_delivery(
        self, outbox: Outbox, write_backs: WriteBacks, *, changed: bool, read_log: Callable[[], bool]
    ) -> None:
        """Judge everything that would be sent; `allowed` is then what may flow.

        `changed` says that contacts have changed since it was judged last, of whom some may be held too.

        `read_log` is called where the import log decides, and returns whether it could be read; else new
        members wait.
        """
        held, known = len(self.held_by), {it.brake for it in self._holds.open()}
        totals, new, tripped = self._judge_new(outbox, read_log)
        most = self._limits.max_points_per_member
        if not new:  # what they would be sent is no part of what the others are
            totals = self._totals(outbox, most, new=False)
        single, whole = self._trips(totals)
        if single and not self._hold(single):
            most = single[0].amount  # released: what was looked at flows, more does not
            _, whole = self._trips(self._totals(outbox, most, new=new))
        over = set(Brake) - tripped - {it.brake for it in (*single, *whole)}
        if over & known:
            self._holds.lapse(sorted(over & known), now=self._now())
        self._end_sweeps(outbox)
        self.allowed = allowed_by(self._hold(whole), most, new=new)
        if len(self.held_by) > held and (changed or set(self.held_by[held:]) - known):
            write_backs.look_at_held(self.allowed)
        if len(self.held_by) > held:
            self._released = []  # the rest of what was released is still to come

    def _judge_new(self, outbox: Outbox, read_log: Callable[[], bool]) -> tuple[Totals, bool, set[Brake]]:
        """Return what would be sent, whether new members may be, and the brake that they trip."""
        most, max_elsewhere = self._limits.max_points_per_member, self._limits.max_elsewhere
        hold = next((it for it in self._holds.open() if it.brake == Brake.ELSEWHERE), None)
        totals = self._totals(outbox, most)
        if hold is None:
            asks = depends_on_log(totals, max_elsewhere=max_elsewhere)
        else:
            asks = hold.released_by is not None  # others may have come in since
        if asks and not read_log():
            return totals, False, {Brake.ELSEWHERE}
        if asks:
            totals = self._totals(outbox, most)
        tripped = judge_elsewhere(totals, max_elsewhere=max_elsewhere)
        if hold is not None and hold.released_by is None and totals.lasting and not totals.elsewhere:
            # Until a person decides: that the log shows none of them any more proves nothing.
            tripped = [Tripped(Brake.ELSEWHERE, hold.amount, hold.detail)]
        return totals, not self._hold(tripped), {it.brake for it in tripped}

    def delivery_done(self, outbox: Outbox) -> None:
        """Let releases end with the delivery they were given for, unless most of it has to wait a little."""
        if self._released:
            most, new = self._limits.max_points_per_member, self.allowed.flows.new
            totals = self._totals(outbox, most, new=new)
            single, whole = self._trips(totals)
            elsewhere = judge_elsewhere(totals, max_elsewhere=self._limits.max_elsewhere)
            waiting = {it.brake for it in (*single, *elsewhere, *whole)}
            self._holds.lapse([it for it in self._released if it not in waiting], now=self._now())
        self._end_sweeps(outbox)

    def _end_sweeps(self, outbox: Outbox) -> None:
        """Let releases of sweeps end, unless too many members that they let go are still to be sent."""
        limits = self._limits
        if self._let_go and not judge_leaving(
            self._totals(outbox, limits.max_points_per_member), max_gone_share=limits.max_gone_share
        ):
            self._holds.lapse(sorted(self._let_go), now=self._now())
            self._let_go = {}

    def _trips(self, totals: Totals) -> tuple[list[Tripped], list[Tripped]]:
        """Return the brakes tripped by single members, and by the whole."""
        limits = self._limits
        single = judge_members(totals, max_points_per_member=limits.max_points_per_member)
        whole = judge_delivery(
            totals, max_share=limits.max_share, max_points_per_cycle=limits.max_points_per_cycle
        )
        looked_at = sum(self._let_go.values())
        leaving = judge_leaving(totals, max_gone_share=limits.max_gone_share, looked_at=looked_at)
        return single, [*leaving, *whole]

    def _totals(self, outbox: Outbox, most: int | None, *, new: bool = True) -> Totals:
        """Return what would be sent, awards above `most` left out, and new members unless `new`."""
        return outbox.totals(most, limits=self._limits, new=new)

    def _hold(self, tripped: Sequence[Tripped], scope: str = "") -> set[Brake]:
        """Hold what is not released, and tell it when it is news; returns the brakes that hold."""
        if not tripped:
            return set()
        known = {hold.brake for hold in self._holds.open() if hold.released_by is None}
        held = self._holds.apply(tripped, scope=scope, now=self._now())
        if not scope:
            self._released += [it.brake for it in tripped if it not in held]
        for it in held:
            name = f"{it.brake}{scope}"
            self.held_by.append(name)
            if name not in known:
                self._tell(name, it)
        return {it.brake for it in held}
