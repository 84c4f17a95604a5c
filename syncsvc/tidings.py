"""What a cycle found that people should know, as log events; each names its remedy.

Events are told when they happen, states when they change. `docs/log-events.md` lists every one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

from syncsvc.errors import LeaseLostError, OperatorError, StateError, TransientError
from syncsvc.remote.clocks import MOST_SKEW, Clocks
from syncsvc.rules.brakes import Tripped
from syncsvc.rules.completeness import Completeness
from syncsvc.rules.settling import Reading, Verdict
from syncsvc.stages.pull import Pulled
from syncsvc.stages.settle import Settled
from syncsvc.state.codes import Lane
from syncsvc.state.late import LandedLate
from syncsvc.state.outbox import Batch
from syncsvc.state.pauses import Pause
from syncsvc.state.reports import Reports
from syncsvc.watch.log import bound, logger
from syncsvc.watch.report import CycleReport, Outcome
from syncsvc.watch.states import PAUSED, WHOLE, States

log = logger()

_ENDING = "ending"
_NUMBERS = re.compile(r"\d+")


Progress = Callable[[str, str, int, int | None], None]
"""Told as work proceeds: the step, the connector or brand, how many, and of how many where that is known."""


def no_progress(step: str, where: str, done: int, expected: int | None) -> None:
    """Tell nobody."""
    del step, where, done, expected


def tell_of_trouble(states: States, stage: str, where: str, error: TransientError | OperatorError) -> None:
    """Tell that a stage ended early, once for as long as it does, `where` naming its connector if any."""
    if isinstance(error, TransientError):
        if states.became(f"{stage}:{where}", "cut short"):
            log.warning("stage_cut_short", stage=stage, reason=str(error), retry_after=error.retry_after)
    elif states.became(f"{stage}:{where}", "needs a person"):
        log.error("stage_needs_operator", stage=stage, reason=str(error))


def tell_of_recovery(states: States, stage: str, where: str) -> None:
    """Tell that a stage which ended early before has come to its end."""
    if states.became(f"{stage}:{where}", WHOLE):
        log.info("stage_recovered", stage=stage)


def tell_of_state(states: States, error: StateError) -> None:
    """Tell that the state cannot be used, once for each reason until it can."""
    before, reason = states.of("state:"), _NUMBERS.sub("0", str(error))  # as `tell_of_recovery` calls it
    if reason not in before.split("\n"):
        states.became("state:", f"{before}\n{reason}")
        log.error("state_failed", reason=str(error))


def save_report(
    reports: Reports,
    states: States,
    report: CycleReport,
    times: tuple[int, int],
    *,
    did_something: bool,
    tells: bool,
) -> None:
    """Keep what a cycle came to that did something, or that ends otherwise than the last one that was kept.

    `times` are those of its begin and its end, in milliseconds. A state that cannot be written is told of;
    where another process runs the cycles by now, nothing is.
    """
    try:
        news = tells and ends_otherwise(states, report, reports.ending)
        if did_something or news:
            started, finished = times
            reports.save_cycle(
                report.cycle,
                started=started,
                finished=finished,
                outcome=report.outcome,
                facts=report.facts(),
            )
    except LeaseLostError:
        return
    except StateError as error:
        tell_of_state(states, error)


def tell_of_outcome(states: States, report: CycleReport) -> None:
    """Tell that the organization's cycles have begun to end otherwise than before."""
    was = states.of("outcome") or str(Outcome.OK)
    if report.outcome in {Outcome.STOPPED, Outcome.PAUSED}:  # who pauses is told of already
        return
    if report.outcome is not Outcome.OK:
        if states.became("outcome", str(report.outcome)):
            log.warning("organization_degraded", outcome=str(report.outcome), was=was)
    elif states.became("outcome", WHOLE):
        log.info("organization_recovered", was=was)


def ends_otherwise(
    states: States, report: CycleReport, saved: Callable[[], tuple[str, Sequence[str]]]
) -> bool:
    """Return whether a cycle ends otherwise than the last one that was `saved`, and remember that it does.

    Numbers in errors do not count: those of calls or seconds differ each time.
    """
    if report.outcome in {Outcome.STOPPED, Outcome.PAUSED}:
        return False
    if states.of(_ENDING) == WHOLE:
        states.became(_ENDING, _ending(*saved()))
    return states.became(_ENDING, _ending(report.outcome, report.errors))


def _ending(outcome: str, errors: Sequence[str]) -> str:
    return _NUMBERS.sub("#", f"{outcome}: {'; '.join(errors)}")


def tell_of_sweep(states: States, connector: str, *, partial: bool, missing: int) -> None:
    """Tell that a sweep could not tell every record from the others, unless the one before it was the same.

    `missing` is how many contacts it did not find.
    """
    part = f"sweep:{connector}"
    if partial and states.became(part, f"partial, {missing} missing"):
        remedy = "mend what is in quarantine: until then nobody is gone"
        log.warning("sweep_partial", missing=missing, remedy=remedy)
    elif not partial and states.became(part, WHOLE):
        log.info("sweep_whole")


def tell_of_batch(batch: Batch, reading: Reading) -> None:
    """Tell what the answer to a batch proved.

    A profile that did not land, or a batch that never left, is sent anew: the stage's own event says why.
    """
    lane, verdict = batch.lane.name.lower(), str(reading.verdict)
    rows, points, detail = len(batch.users), batch.points, reading.detail
    facts = {
        "batch": batch.id,
        "lane": lane,
        "rows": rows,
        "points": points,
        "verdict": verdict,
        "detail": detail,
    }
    if reading.verdict is Verdict.LANDED:
        log.debug("batch_settled", **facts)
    elif reading.refused or (batch.lane is Lane.POINTS and reading.verdict is not Verdict.REFUTED):
        log.warning("batch_not_landed", **facts)
    else:
        log.debug("batch_not_landed", **facts)


def tell_of_reading(pulled: Pulled) -> None:
    """Tell what one connector's reading met, in as many events as there are kinds of trouble."""
    for record, name in pulled.refusals:
        log.debug("contact_quarantined", record=record, field=name)
    if pulled.cursor_lost:
        log.warning("cursor_lost", remedy="everything is read again")
    if pulled.fallen:
        log.warning("points_fell", members=pulled.fallen)


def tell_of_pauses(states: States, pauses: Iterable[Pause], connectors: Iterable[str]) -> None:
    """Tell what people have paused, the organization or a connector, and what goes on, once each."""
    paused = {it.connector or "": it for it in pauses}
    for part in ("", *connectors):
        it = paused.get(part)
        if not states.became(f"pause {part}", WHOLE if it is None else PAUSED):
            continue
        with bound(connector=part) if part else nullcontext():
            if it is None:
                log.info("pause_ended")
            else:
                remedy = "`syncsvc resume` lets it go on"
                log.warning("pause_began", by=it.by, since=it.since, reason=it.reason or "", remedy=remedy)


def tell_of_clocks(states: States, clocks: Iterable[Clocks]) -> None:
    """Tell, once each, of servers whose clocks have come to differ from this machine's, or agree again."""
    for host, skew in {host: skew for it in clocks for host, skew in it.skews().items()}.items():
        differs = abs(skew) > MOST_SKEW
        if not states.became(f"clock {host}", "differs" if differs else WHOLE):
            continue
        if differs:
            remedy = "let this machine's clock be set by NTP; `syncsvc check` compares every server's"
            log.warning("clock_differs", host=host, ahead=round(skew.total_seconds()), remedy=remedy)
        else:
            log.info("clock_agrees", host=host)


def tell_of_settled(settled: Settled) -> None:
    """Tell what became of rows in doubt."""
    if settled.landed or settled.refuted:
        log.info("doubts_settled", landed=settled.landed, refuted=settled.refuted)
    if settled.held:
        remedy = "look at `syncsvc doubt`, and settle them there"
        log.error("doubts_held", rows=settled.held, remedy=remedy)


def tell_of_restored(rows: int, points: int) -> None:
    """Tell that what was owed under a state that was put back is in doubt."""
    remedy = "the log proves what was not awarded; `syncsvc doubt` shows what a person decides"
    log.warning("restored_points_in_doubt", rows=rows, points=points, remedy=remedy)


def tell_of_brake(name: str, tripped: Tripped) -> None:
    """Tell that a brake holds something from now on."""
    log.error(
        "brake_tripped",
        brake=name,
        detail=tripped.detail,
        remedy="look, then let it go: `syncsvc release` names the ways out",
    )


def tell_of_log(brand_id: str, found: Completeness) -> None:
    """Tell that a brand's import log has become short, or whole again."""
    if found.short:
        log.error("import_log_short", brand=brand_id, shown=found.shown, known=found.known)
    else:
        log.info("import_log_whole", brand=brand_id, shown=found.shown, known=found.known)


def tell_of_late(brand_id: str, late: LandedLate) -> None:
    """Tell of rows that may have landed after they were taken as not applied."""
    facts = {
        "brand": brand_id,
        "rows": late.rows,
        "profiles": late.profiles,
        "points": late.points,
        "points_in_doubt": late.doubted,
    }
    if late.points:
        remedy = "they may be awarded twice: `syncsvc doubt` names the rows, the wallet what it has"
        log.error("rows_landed_late", **facts, remedy=remedy)
    else:
        remedy = "none: newer profiles are sent again, points that were not sent anew yet are in doubt"
        log.warning("rows_landed_late", **facts, remedy=remedy)


def tell_of_stray(brand_id: str) -> None:
    """Tell that somebody else has moved a brand's witness."""
    remedy = "the witness must be moved by nobody else: name another email in wallet.witness"
    log.error("witness_moved_by_others", brand=brand_id, remedy=remedy)
