"""The explanation: why a member is or is not up to date, in one sentence, with what comes next.

Of several reasons the one is told that has to be over before any other can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from syncsvc.config import OnGone, OrganizationConfig, Points
from syncsvc.doubts import Case, cases
from syncsvc.rules.brakes import Brake
from syncsvc.rules.settling import opening
from syncsvc.state.holds import Hold
from syncsvc.state.lives import Life, Link
from syncsvc.state.pauses import Pause
from syncsvc.state.quarantine import Refusal, Side
from syncsvc.state.store import Store
from syncsvc.watch.redaction import redacted


class Condition(StrEnum):
    """How a member stands."""

    PAUSED = "paused"
    IN_FLIGHT = "in_flight"
    IN_DOUBT = "in_doubt"
    HELD = "held"
    REFUSED = "refused"
    QUARANTINED = "quarantined"
    UNREADABLE = "unreadable"
    BRAKED = "braked"
    WAITING = "waiting"
    DUE = "due"
    UNSEEN = "unseen"
    NOT_WRITTEN_BACK = "not_written_back"
    WRITE_BACK_REFUSED = "write_back_refused"
    GONE = "gone"
    FALLEN = "fallen"
    UP_TO_DATE = "up_to_date"
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is told of one member in one brand; `sentence` goes on from its name."""

    condition: Condition
    sentence: str
    life: Life


def explain(store: Store, config: OrganizationConfig, email_key: str, *, now: datetime) -> list[Explanation]:
    """Return the explanation of the member with this case-folded email in each brand that knows it."""
    found = []
    lives = store.lives.of(email_key)
    if not lives:
        return []
    pauses = store.pauses.open()
    holds = [it for it in store.holds.open() if it.released_by is None]
    doubts = cases(store, config.wallet)
    _, errors = store.reports.ending()
    trouble = redacted(errors[0]) if errors else None
    for life in map(_without_persons, lives):
        mine = [it for it in doubts if it.suspect.member == life.member]
        scene = _Scene(config, life, pauses, holds, mine, now, trouble)
        condition, sentence = next(scene.reasons())
        found.append(Explanation(condition, sentence, life))
    return found


def _without_persons(life: Life) -> Life:
    """Return a life without what others' words may tell of a person: the CRM's, the wallet's, a map's."""
    contacts = [
        replace(
            link,
            trouble=redacted(link.trouble),
            refusals=tuple(replace(it, reason=redacted(it.reason)) for it in link.refusals),
        )
        for link in life.contacts
    ]
    happenings = [
        replace(
            it,
            facts={
                key: redacted(value) if isinstance(value, str) else value for key, value in it.facts.items()
            },
        )
        for it in life.happenings
    ]
    return replace(life, contacts=tuple(contacts), happenings=tuple(happenings))


def unknown(store: Store) -> str:
    """Say why nobody may be known under an email."""
    reasons = ["no contact with it was read"]
    refused = sum(it.side is Side.MAPPING for it in store.quarantine.refusals())
    if refused:
        them = "a contact" if refused == 1 else f"one of the {refused:,} contacts"
        reasons.append(f"it is that of {them} in quarantine (`syncsvc quarantine`)")
    reasons.append("`where` leaves it out")
    reasons += [f"{it.connector or 'the organization'} is paused" for it in store.pauses.open()]
    reasons += [
        f"{name} is still being read for the first time"
        for name, connector_id in store.connectors.items()
        if store.intake.progress(connector_id).first_read
    ]
    return f"no member has this email: {', or '.join(reasons)}"


@dataclass(frozen=True, slots=True)
class _Scene:
    config: OrganizationConfig
    life: Life
    pauses: Sequence[Pause]
    holds: Sequence[Hold]
    doubts: Sequence[Case]
    now: datetime
    trouble: str | None

    def reasons(self) -> Iterator[tuple[Condition, str]]:
        """Yield every reason that holds, the first to be over first; the last one always holds."""
        life = self.life
        if life.in_flight is not None:
            what = _points(life.unsettled) if life.unsettled else "its profile"
            yield Condition.IN_FLIGHT, f"is being sent at this moment: {what}, in batch {life.in_flight}."
        yield from self._unsettled()
        yield from self._paused()
        yield from self._refused()
        yield from self._unreadable()
        if life.due:
            yield from self._braked()
            yield from self._waiting()
            yield (
                Condition.DUE,
                f"is not up to date yet: the next cycle sends {self._what()}{self._if_it_can()}.",
            )
        yield from self._arrived()
        fallen = life.credited - life.earned
        if fallen > 0 and self.config.wallet.points is Points.ADD:
            told = f"is up to date; the CRM's points fell by {fallen:,}, which is never taken back: what is"
            yield Condition.FALLEN, f"{told} earned from now on makes that good first."
        if life.delivered and any(it.what == "sent" for it in life.happenings):
            told = f", and the import log shows it ({life.log_value})" if life.log_value else ""
            yield Condition.UP_TO_DATE, f"is up to date: everything the CRM says is in the wallet{told}."
        yield (
            Condition.KNOWN,
            (
                "is up to date: it was in the wallet before this service was "
                f'(first_run = "{self.config.first_run}"), and nothing is to be sent.'
            ),
        )

    def _unsettled(self) -> Iterator[tuple[Condition, str]]:
        for case in self.doubts:
            what = _points(case.suspect.points) if case.suspect.points else "its profile"
            if case.suspect.held:
                yield (
                    Condition.HELD,
                    (
                        f"is not up to date: {what} of batch {case.suspect.batch} may have arrived or not, "
                        f"the import log cannot tell, and a person has to: `syncsvc doubt {case.id}`."
                    ),
                )
                continue
            if case.settles_at is not None:
                proof = f"by {_clock(case.settles_at)} that is proof that it did not arrive"
                then = f"unless its log entry moves, {proof}, and it is sent again"
            elif case.gives_up_at is not None:
                policy = f'on_doubt = "{case.on_doubt}"'
                then = f"what the log cannot decide by {_clock(case.gives_up_at)}, {policy} does"
            else:
                then = "the import log decides"
            yield (
                Condition.IN_DOUBT,
                (
                    f"is not up to date: batch {case.suspect.batch} with {what} got no answer and is in "
                    f"doubt; {then}."
                ),
            )
        if self.life.unsettled and self.life.in_flight is None and not self.doubts:
            yield Condition.IN_DOUBT, f"waits until {_points(self.life.unsettled)} of it are settled."

    def _paused(self) -> Iterator[tuple[Condition, str]]:
        mine = {it.connector for it in self._contacts()}
        for pause in self.pauses:
            if pause.connector is None or pause.connector in mine:
                why = f" ({pause.reason})" if pause.reason else ""
                what = pause.connector or self.config.name
                where = f" {pause.connector}" if pause.connector else ""
                yield (
                    Condition.PAUSED,
                    (
                        f"is as {what} left it {_clock(pause.since)}, when {pause.by} paused it{why}: "
                        f"`syncsvc resume -o {self.config.name}{where}` lets it go on."
                    ),
                )

    def _refused(self) -> Iterator[tuple[Condition, str]]:
        for link in self._contacts():
            for it in link.refusals:
                told, remedy = _told(it), f"mend the record, or `syncsvc quarantine retry {it.record}`"
                if it.side is Side.WALLET:
                    yield Condition.REFUSED, f"is not up to date: {told}; {remedy}."
                elif it.side is not Side.CRM:
                    yield Condition.QUARANTINED, f"is not up to date: {told}; {remedy}."
        if self.life.refused:
            yield (
                Condition.REFUSED,
                ("is not up to date: the wallet refuses its row; it is sent again when the contact changes."),
            )

    def _unreadable(self) -> Iterator[tuple[Condition, str]]:
        for link in self._contacts():
            if link.trouble:
                yield (
                    Condition.UNREADABLE,
                    (
                        f"may be behind: {link.connector} cannot be read ({link.trouble}); mend that, and "
                        "see `syncsvc check`."
                    ),
                )

    def _braked(self) -> Iterator[tuple[Condition, str]]:
        for hold in self.holds:
            if self._holds(hold):
                yield (
                    Condition.BRAKED,
                    (
                        f"is not up to date: the brake {hold.brake} holds {self._what()} ({hold.detail}); "
                        f"`syncsvc release` names the ways out of hold {hold.id}."
                    ),
                )

    def _holds(self, hold: Hold) -> bool:
        life, owed = self.life, self._owed()
        match hold.brake:
            case Brake.SHARE:
                return not life.new and not life.leaving
            case Brake.ELSEWHERE:
                return life.new
            case Brake.GONE_SHARE:
                return life.leaving
            case Brake.POINTS_PER_CYCLE:
                return owed > 0
            case Brake.POINTS_PER_MEMBER:
                return owed > (self.config.brakes.max_points_per_member or 0)
        return False

    def _waiting(self) -> Iterator[tuple[Condition, str]]:
        life, owed = self.life, self._owed()
        if not owed or self.config.wallet.points is not Points.ADD:
            return
        if life.quiet_until is not None and life.quiet_until > self.now:
            yield (
                Condition.WAITING,
                (
                    f"is not up to date: {_points(owed)} wait until {_clock(life.quiet_until)}, as an older "
                    "request of it may still arrive."
                ),
            )
        if life.unshown is not None and life.unshown + self.config.wallet.settle_after > self.now:
            yield (
                Condition.WAITING,
                (
                    f"is not up to date: {_points(owed)} wait until the import log shows the row sent at "
                    f"{_clock(life.unshown)}, or {_clock(life.unshown + self.config.wallet.settle_after)}: "
                    "its move would seem to prove theirs."
                ),
            )
        fresh = opening(self.now, timedelta(milliseconds=life.resolution_ms))
        if life.log_at is not None and fresh <= life.log_at <= self.now + timedelta(days=1):
            yield (
                Condition.WAITING,
                (
                    f"is not up to date: {_points(owed)} wait for the next cycle, as its log entry "
                    f"({life.log_value}) is so fresh that a second award would leave no trace."
                ),
            )

    def _arrived(self) -> Iterator[tuple[Condition, str]]:
        life = self.life
        if life.unseen is not None:
            read = _clock(life.log_read_at) if life.log_read_at else "never"
            yield (
                Condition.UNSEEN,
                (
                    f"has its points in the wallet (batch {life.unseen} was confirmed), but the import log, "
                    f"read {read}, does not show them yet; its time is written back once it does."
                ),
            )
        for link in life.contacts:
            for it in link.refusals:
                if it.side is Side.CRM:
                    yield (
                        Condition.WRITE_BACK_REFUSED,
                        (
                            f"is up to date in the wallet, but {_told(it)}; mend the record, or "
                            f"`syncsvc quarantine retry {it.record}`."
                        ),
                    )
            if link.unwritten:
                when = "with the next cycle"
                if link.next_try is not None and link.next_try > self.now:
                    when = f"again {_clock(link.next_try)}, after {link.tries} failures"
                yield (
                    Condition.NOT_WRITTEN_BACK,
                    (
                        f"is up to date in the wallet; its time is written back to {link.connector} "
                        f"{link.record} {when}."
                    ),
                )
        if life.contacts and not self._contacts():
            expired = self.config.policy.on_gone is OnGone.EXPIRE
            then = "it was expired" if expired else "it stays in the wallet as it was"
            left = ", ".join(f"{it.connector} {it.record} is {it.state}" for it in life.contacts[:3])
            yield (
                Condition.GONE,
                (
                    f"has no contact any more ({left}); as on_gone = "
                    f'"{self.config.policy.on_gone}" says, {then}.'
                ),
            )

    def _contacts(self) -> list[Link]:
        return [it for it in self.life.contacts if it.state in {"active", "quarantined"}]

    def _owed(self) -> int:
        life = self.life
        if self.config.wallet.points is Points.ADD:
            return 0 if life.unsettled else max(0, life.earned - life.credited)
        return abs(life.earned - life.credited) if self.config.wallet.points is Points.SET else 0

    def _if_it_can(self) -> str:
        if not self.trouble:
            return ""
        return f", if it can: the last one was cut short ({self.trouble}); see `syncsvc check`"

    def _what(self) -> str:
        if self.life.leaving:
            return "its expiry"
        owed = self._owed()
        if not owed:
            return "its profile" if self.life.new else "its changed profile"
        return _points(owed) + ("" if self.life.delivered else " and its profile")


def _told(refusal: Refusal) -> str:
    by = "the CRM refuses the write-back to" if refusal.side is Side.CRM else "quarantine holds"
    dropped = ", and was dropped from sight" if refusal.dropped else ""
    return f"{by} {refusal.connector} {refusal.record} ({refusal.reason}){dropped}"


def _points(points: int) -> str:
    return f"{points:,} point{'' if points == 1 else 's'}"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"
