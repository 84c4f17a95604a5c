"""Deliver: what is due is claimed, sent, and settled by what the answer proves, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from syncsvc.errors import LostAnswerError, NotSentError, OperatorError, StoppedError, TransientError
from syncsvc.remote.wallet import ImportAnswer, WalletClient
from syncsvc.rules.brakes import Allowed
from syncsvc.rules.settling import Grade, Reading, Then, Verdict, opening, read_answer
from syncsvc.state.codes import Lane, Outcome
from syncsvc.state.confirmations import Confirmations
from syncsvc.state.database import from_ms
from syncsvc.state.outbox import Batch, Outbox
from syncsvc.state.settlements import Facts, Ruling, Settlements


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
    sleep: Callable[[float], None]
    read_log: Callable[[], None]
    tell: Callable[[Batch, Reading], None]


_SPARE = timedelta(seconds=10)
"""How long a batch waits at most for its witness; beyond, it leaves without."""


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
            shrunk, more = False, True
            while True:
                if delivery.stopping():
                    raise StoppedError("asked to stop between batches")
                if lane is Lane.POINTS and more:
                    _make_ready(wallet, outbox, confirmations, delivery, brand_id)
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
                more = len(batch.wire) == limit
                if reading.then is Then.SMALLER or reading.verdict is Verdict.UNREADABLE:
                    limit, shrunk = max(1, len(batch.wire) // 2), True
                    outbox.limit_batches(brand_id, limit)
                    again = reading.verdict is Verdict.REFUTED or lane is Lane.PROFILE
                    after = after if again and len(batch.wire) > 1 else batch.last_member
                    continue
                full = more and limit < delivery.batch_size
                # While a bad row is being searched, what lands beside it must not undo the search.
                searching = shrunk or settlements.in_doubt()
                if reading.verdict is Verdict.LANDED and full and not searching:
                    limit = min(delivery.batch_size, limit * 2)
                    outbox.limit_batches(brand_id, None if limit == delivery.batch_size else limit)
                after = batch.last_member


def _make_ready(
    wallet: WalletClient, outbox: Outbox, confirmations: Confirmations, delivery: Delivery, brand_id: str
) -> None:
    """Read the log again where it was read too long ago to be evidence, and wait for the witness."""
    read_at = confirmations.last_read(brand_id)
    if read_at is None or from_ms(read_at) < delivery.now() - delivery.settle_after:
        delivery.read_log()
    pause = outbox.witness_pause(brand_id, opening(wallet.now(), confirmations.resolution(brand_id)))
    if pause is not None and timedelta() < pause <= _SPARE:
        delivery.sleep(pause.total_seconds())


def _send(
    wallet: WalletClient, batch: Batch, settlements: Settlements, delivery: Delivery, delivered: Delivered
) -> Reading:
    delivered.sent[batch.lane.name.lower()] += len(batch.users)
    delivered.points_sent += batch.points
    answer: ImportAnswer | None = None
    trouble: TransientError | OperatorError | None = None
    try:
        answer = wallet.import_members(batch.wire)
        reading = read_answer(answer.status, answer.body, rows=len(batch.wire))
    except (NotSentError, OperatorError) as error:
        trouble, reading = error, Reading(Verdict.REFUTED, detail=str(error))
    except LostAnswerError as error:
        trouble, reading = error, Reading(Verdict.DOUBT, detail=str(error))
    rulings = _rule(batch, reading)
    witness = _rule_witness(batch, reading)
    if witness is Outcome.REFUSED and reading.refused:
        field = reading.refused[len(batch.users)]
        detail = f"{reading.detail}; the witness is refused for its {field}: check wallet.witness"
        reading = replace(reading, then=Then.PAUSE, detail=detail)
    settlements.settle(
        batch.id,
        rulings,
        now=delivery.now(),
        facts=Facts(
            None if answer is None else answer.status, reading.import_id, reading.imported, reading.detail
        ),
        quiet_for=delivery.settle_after,
        witness=witness,
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
    if reading.verdict is Verdict.UNREADABLE and len(batch.wire) == 1:
        return {0: Ruling(Outcome.REFUSED, Grade.ANSWER, "row")}
    for position, name in (reading.refused or {}).items():
        if position == len(batch.users):
            continue  # the witness
        rulings[position] = Ruling(Outcome.REFUSED, Grade.ANSWER, name)
    return rulings


def _rule_witness(batch: Batch, reading: Reading) -> Outcome:
    """Return what an answer makes of the witness's row, where the batch had one."""
    if len(batch.users) in (reading.refused or {}):
        return Outcome.REFUSED
    proven = {Verdict.LANDED: Outcome.LANDED, Verdict.REFUTED: Outcome.REFUTED}
    return proven.get(reading.verdict, Outcome.DOUBT)


def _count(batch: Batch, reading: Reading, rulings: dict[int, Ruling], delivered: Delivered) -> None:
    outcomes = Counter(ruling.outcome for ruling in rulings.values())
    delivered.landed += outcomes[Outcome.LANDED]
    delivered.doubted += outcomes[Outcome.DOUBT]
    if reading.verdict is Verdict.LANDED:
        delivered.points_landed += batch.points
    delivered.batches[str(reading.verdict)] += 1
