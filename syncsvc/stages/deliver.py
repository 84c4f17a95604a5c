"""Deliver: what is due is claimed, sent, and settled by what the answer proves, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from syncsvc.errors import LostAnswerError, NotSentError, OperatorError, StoppedError, TransientError
from syncsvc.remote.wallet import ImportAnswer, WalletClient
from syncsvc.rules.brakes import Allowed
from syncsvc.rules.settling import Grade, Reading, Then, Verdict, opening, read_answer
from syncsvc.state.confirmations import Confirmations
from syncsvc.state.outbox import Batch, Outbox
from syncsvc.state.settlements import Facts, Ruling, Settlements
from syncsvc.state.tables import Lane, Outcome


@dataclass(slots=True)
class Delivered:
    """What a delivery came to, in rows and points; `batches` counts batches by what their answer proved."""

    sent: Counter[str] = field(default_factory=Counter)
    landed: int = 0
    doubted: int = 0
    points_sent: int = 0
    points_landed: int = 0
    batches: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What delivering needs to know, beside the wallet and the state; `allowed` is what brakes let flow."""

    cycle: str
    batch_size: int
    allowed: Allowed
    lanes: Sequence[Lane]
    settle_after: timedelta
    now: Callable[[], datetime]
    stopping: Callable[[], bool]
    tell: Callable[[Batch, Reading], None]


def deliver(
    wallet: WalletClient,
    outbox: Outbox,
    settlements: Settlements,
    confirmations: Confirmations,
    delivery: Delivery,
    delivered: Delivered,
) -> None:
    """Send everything that is due in the delivery's lanes, in their order, counting it in `delivered`.

    Every batch is durable before its request leaves and settled before the next one is claimed. Raises
    TransientError where the wallet must be given time, OperatorError where a person must act, and
    StoppedError between batches; what was sent until then is settled.
    """
    for brand_id in outbox.brands_due():
        for lane in delivery.lanes:
            after, limit = 0, min(delivery.batch_size, outbox.batch_limit(brand_id) or delivery.batch_size)
            shrunk = False
            while True:
                if delivery.stopping():
                    raise StoppedError("asked to stop between batches")
                sent_at = wallet.now()
                batch = outbox.claim(
                    brand_id,
                    lane,
                    limit=limit,
                    after=after,
                    allowed=delivery.allowed,
                    cycle=delivery.cycle,
                    now=delivery.now(),
                    sent_at=sent_at,
                    settled_before=opening(sent_at, confirmations.resolution(brand_id)),
                )
                if batch is None:
                    break
                reading = _send(wallet, batch, settlements, delivery, delivered)
                if reading.then is Then.SMALLER or reading.verdict is Verdict.UNREADABLE:
                    limit, shrunk = max(1, len(batch.users) // 2), True
                    outbox.limit_batches(brand_id, limit)
                    again = reading.verdict is Verdict.REFUTED or lane is Lane.PROFILE
                    after = after if again and len(batch.users) > 1 else batch.last_member
                    continue
                full = len(batch.users) == limit < delivery.batch_size
                # While a bad row is being searched, what lands beside it must not undo the search.
                searching = shrunk or settlements.in_doubt()
                if reading.verdict is Verdict.LANDED and full and not searching:
                    limit = min(delivery.batch_size, limit * 2)
                    outbox.limit_batches(brand_id, None if limit == delivery.batch_size else limit)
                after = batch.last_member


def _send(
    wallet: WalletClient, batch: Batch, settlements: Settlements, delivery: Delivery, delivered: Delivered
) -> Reading:
    delivered.sent[batch.lane.name.lower()] += len(batch.users)
    delivered.points_sent += batch.points
    answer: ImportAnswer | None = None
    trouble: TransientError | OperatorError | None = None
    try:
        answer = wallet.import_members(batch.users)
        reading = read_answer(answer.status, answer.body, rows=len(batch.users))
    except (NotSentError, OperatorError) as error:
        trouble, reading = error, Reading(Verdict.REFUTED, detail=str(error))
    except LostAnswerError as error:
        trouble, reading = error, Reading(Verdict.DOUBT, detail=str(error))
    rulings = _rule(batch, reading)
    settlements.settle(
        batch.id,
        rulings,
        now=delivery.now(),
        facts=Facts(
            None if answer is None else answer.status, reading.import_id, reading.imported, reading.detail
        ),
        quiet_for=delivery.settle_after,
    )
    _count(batch, reading, rulings, delivered)
    delivery.tell(batch, reading)
    if trouble is not None:
        raise trouble
    if reading.then is Then.WAIT:
        wait = None if answer is None else answer.retry_after
        raise TransientError(f"POST of an import answered {reading.detail}", retry_after=wait)
    if reading.then is Then.PAUSE:
        raise OperatorError(f"POST of an import answered {reading.detail}")
    return reading


def _rule(batch: Batch, reading: Reading) -> dict[int, Ruling]:
    """Return what an answer makes of each row of the batch."""
    unproven = Outcome.DOUBT if batch.lane is Lane.POINTS else Outcome.RELEASED
    rest = {
        Verdict.LANDED: Outcome.LANDED,
        Verdict.REFUTED: Outcome.REFUTED,
    }.get(reading.verdict, unproven)
    rulings = dict.fromkeys(range(len(batch.users)), Ruling(rest, Grade.ANSWER))
    if reading.verdict is Verdict.UNREADABLE and len(batch.users) == 1:
        return {0: Ruling(Outcome.REFUSED, Grade.ANSWER, "row")}
    for position, name in (reading.refused or {}).items():
        rulings[position] = Ruling(Outcome.REFUSED, Grade.ANSWER, name)
    return rulings


def _count(batch: Batch, reading: Reading, rulings: dict[int, Ruling], delivered: Delivered) -> None:
    outcomes = Counter(ruling.outcome for ruling in rulings.values())
    delivered.landed += outcomes[Outcome.LANDED]
    delivered.doubted += outcomes[Outcome.DOUBT]
    if reading.verdict is Verdict.LANDED:
        delivered.points_landed += batch.points
    delivered.batches[str(reading.verdict)] += 1
