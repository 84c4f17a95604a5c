"""How doubts and the decisions of people on them are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from rich.markup import escape

from syncsvc.doubts import Case
from syncsvc.rules.settling import Finding
from syncsvc.state.codes import Outcome
from syncsvc.state.doubts import Choice, Decided, Suspect
from syncsvc.state.twice import Found, PaidTwice
from syncsvc.views.paper import SHOWN, Paper, ago, print_json, stamp

CONSEQUENCES = {
    Choice.LANDED: "count as credited",
    Choice.REFUTED: "are owed again and sent by the next cycle",
    Choice.AWARD: "are sent again by the next cycle, though they may have arrived",
    Choice.SKIP: "are never sent again, though they may not have arrived",
}
FOUND_OUT = {
    Found.TWICE: "were awarded twice",
    Found.ONCE: "were awarded once",
}
_FOUND = {
    Finding.UNMOVED: "its log entry has not moved",
    Finding.IN_WINDOW: "its log entry moved while the request was under way",
    Finding.ELSEWHERE: "its log entry moved, but not while the request was under way: something else did it",
    Finding.MUTE: "its log entry can show nothing: as fresh as the request, unreadable, or gone",
}
_WITNESS = {
    Finding.UNMOVED: "what moved is not proven to be ours",
    Finding.IN_WINDOW: "the batch was applied",
    Finding.ELSEWHERE: "somebody else moved it: it says nothing of this batch",
    Finding.MUTE: "it can show nothing of this batch",
}
_AT_GIVING_UP = {
    "hold": "it is held for a person to decide",
    "award": "it is sent again",
    "skip": "it is closed without being sent again",
}


def show_doubts(
    found: Mapping[str, Sequence[Case]],
    twice: Mapping[str, Sequence[PaidTwice]],
    *,
    now: datetime,
    as_json: bool,
) -> None:
    """Show each case with its evidence and what comes next; `twice` are points that may be paid twice."""
    if as_json:
        print_json(
            {
                name: [*(_facts(case, now) for case in cases), *(_facts_twice(it) for it in twice[name])]
                for name, cases in found.items()
            }
        )
        return
    paper = Paper()
    for name, cases in found.items():
        _show_twice(paper, name, twice[name])
        if not cases:
            if not twice[name]:
                paper.line(f"[green]✓[/] {escape(name)}: nothing is in doubt, nothing is held")
            continue
        held = [case for case in cases if case.suspect.held]
        points = sum(case.suspect.points for case in cases)
        paper.line(
            f"[bold]{escape(name)}[/]: {len(cases) - len(held):,} rows in doubt, {len(held):,} held, "
            f"{points:,} points in all"
        )
        for case in [*held, *(it for it in cases if not it.suspect.held)]:
            it, evidence = case.suspect, case.evidence
            color, state = ("red", "held") if it.held else ("yellow", "in doubt")
            answer = it.answer or "the process died"
            before, seen = (value or "nothing" for value in (evidence.before, evidence.now))
            paper.line(
                f"  [{color}]{state}[/] [bold]{case.id}[/]: {it.points:,} points for {escape(owner(it))}, "
                f"{_sent(case, now)}; {escape(answer)}"
            )
            graded = f", grade {case.grade}" if case.grade else ""
            paper.line(
                f"    log: {escape(before)} before, {escape(seen)} now "
                f"({evidence.finding.replace('_', ' ')}{graded})"
            )
            if (witness := case.witness) is not None:
                before, seen = (value or "nothing" for value in (witness.before, witness.now))
                told = f"witness: {before} before, {seen} now ({witness.finding.replace('_', ' ')})"
                paper.line(f"    {escape(told)}: {_WITNESS[Finding[witness.finding.upper()]]}")
            paper.line(f"    → {escape(outlook(case, now))}", style="cyan")
    if any(found.values()):
        paper.line("settle one with: syncsvc doubt BATCH[:ROW] landed|refuted|award|skip")


def _show_twice(paper: Paper, name: str, rows: Sequence[PaidTwice]) -> None:
    if not rows:
        return
    points = sum(it.points for it in rows)
    paper.line(f"[bold]{escape(name)}[/]: {points:,} points may be awarded twice")
    for it in rows:
        before, seen = (value or "nothing" for value in (it.log_before, it.log_now))
        paper.line(
            f"  [red]landed late[/] [bold]{it.id}[/]: {it.points:,} points for {escape(owner(it))}, sent "
            f"anew since; its entry moved at {stamp(it.landed_at)}, which no import explains"
        )
        paper.line(f"    log: {escape(before)} before, {escape(seen)} now")
        paper.line(
            f"    → are they there twice, in the wallet? then: syncsvc doubt {it.id} twice; else: once",
            style="cyan",
        )


def _sent(case: Case, now: datetime) -> str:
    if not case.restored:
        return f"sent {stamp(case.sent_at)} ({ago(case.sent_at, now)})"
    if not case.sent_at.timestamp():
        return "perhaps sent, at a time that nobody knows"
    return f"perhaps sent, after {stamp(case.sent_at)} ({ago(case.sent_at, now)})"


def outlook(case: Case, now: datetime) -> str:
    """Say in one sentence what the evidence is, and what becomes of a case when."""
    found = Finding[case.evidence.finding.upper()]
    said = _FOUND[found]
    if case.restored and found in {Finding.IN_WINDOW, Finding.ELSEWHERE}:
        said = "its log entry moved since: by an award that is not known any more, a till, or a dashboard"
    if case.restored and case.suspect.held and found is Finding.UNMOVED:
        said += ", but its contact is new or another since, and may have been awarded under another email"
    if case.grade is not None and case.grade != case.asked:
        said += f", which is proof of grade {case.grade}, where {case.asked} is asked for (wallet.evidence)"
    if case.suspect.held:
        return f"{said}; a person decides"
    if case.settles_at is not None:
        return (
            f"{said}: {_when(case.settles_at, now)} that proves that it did not arrive, and it is sent again"
        )
    if case.gives_up_at is not None:
        return f"{said}; {_when(case.gives_up_at, now)} {_AT_GIVING_UP[case.on_doubt]}"
    return said


def owner(it: Suspect | Decided | PaidTwice) -> str:
    """Return whose a row is: the CRM record, or the member's number where no contact owns it."""
    return f"member {it.member}" if it.record is None else f"{it.connector} {it.record}"


def question(name: str, cases: Sequence[Case], choice: Choice) -> str:
    """Ask for a decision in the words of what follows from it."""
    points = sum(case.suspect.points for case in cases)
    rows = ", ".join(f"{case.id} ({owner(case.suspect)})" for case in cases[:SHOWN])
    more = f" and {len(cases) - SHOWN} more" if len(cases) > SHOWN else ""
    follows = f"{points:,} points {CONSEQUENCES[choice]}.{_against(cases, choice)}"
    return f"{name}: {rows}{more}: {follows} Settle it so?"


def question_twice(name: str, rows: Sequence[PaidTwice], found: Found) -> str:
    """Ask whether what a person found out is to be recorded."""
    points = sum(it.points for it in rows)
    listed = ", ".join(f"{it.id} ({owner(it)})" for it in rows[:SHOWN])
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"{name}: {listed}{more}: {points:,} points {FOUND_OUT[found]}. Record it so?"


def show_found(name: str, rows: Sequence[PaidTwice], found: Found, *, by: str, as_json: bool) -> None:
    """Show what was recorded about points that may have been awarded twice."""
    points = sum(it.points for it in rows)
    if as_json:
        told = {"settled": [it.id for it in rows], "points": points, "choice": found, "by": by}
        print_json({"organization": name, **told})
        return
    Paper().line(f"{escape(name)}: {escape(by)} found that {points:,} points {FOUND_OUT[found]}")


def not_twice(batch: int, row: int | None) -> str:
    """Say that a case is none of points that may have been awarded twice."""
    case = f"{batch}" if row is None else f"{batch}:{row}"
    return (
        f"{case} has no points that may be awarded twice, or somebody has looked into them: "
        "`syncsvc doubt` lists them, `syncsvc doubt --history` what was found"
    )


def _facts_twice(it: PaidTwice) -> dict[str, object]:
    return {"id": it.id, **asdict(it), "paid_twice": True}


def _against(cases: Sequence[Case], choice: Choice) -> str:
    """Say what evidence there is against a decision, in words that begin with a blank."""
    found = [Finding[case.evidence.finding.upper()] for case in cases]
    moved = sum(it in {Finding.IN_WINDOW, Finding.ELSEWHERE} for it in found)
    unmoved = sum(it is Finding.UNMOVED for it in found)
    if choice in {Choice.REFUTED, Choice.AWARD} and moved:
        return f" Mind: the log entries of {moved:,} moved since; what arrived then would be awarded twice."
    if choice is Choice.LANDED and unmoved:
        return f" Mind: the log entries of {unmoved:,} have not moved; nothing shows that they arrived."
    return ""


def show_settled(name: str, cases: Sequence[Case], choice: Choice, *, by: str, as_json: bool) -> None:
    """Show what was settled, and what follows from it."""
    points = sum(case.suspect.points for case in cases)
    if as_json:
        settled = {
            "organization": name,
            "settled": [case.id for case in cases],
            "points": points,
            "choice": choice,
            "by": by,
        }
        print_json(settled)
        return
    Paper().line(
        f"{escape(name)}: {len(cases):,} {'row' if len(cases) == 1 else 'rows'} settled by {escape(by)} as "
        f"{choice}: {points:,} points {CONSEQUENCES[choice]}"
    )


def show_history(decided: Mapping[str, Sequence[Decided]], *, as_json: bool) -> None:
    """Show what people decided, the newest first."""
    if as_json:
        print_json({name: [asdict(it) for it in them] for name, them in decided.items()})
        return
    paper = Paper()
    for name, them in decided.items():
        if not them:
            paper.line(f"{escape(name)}: nobody has settled anything by hand")
        for it in them:
            state = "held" if it.held else "landed late" if it.choice in list(Found) else "in doubt"
            log = f"{it.evidence.before or 'nothing'} → {it.evidence.now or 'nothing'}"
            paper.line(
                escape(
                    f"{name}: {stamp(it.at)} {it.by} settled {it.batch}:{it.row} ({owner(it)}, "
                    f"{it.points:,} points, {state}, log {log}) as {it.choice}"
                )
            )


def _facts(case: Case, now: datetime) -> dict[str, object]:
    return {
        "id": case.id,
        **asdict(case.suspect),
        **asdict(case.evidence),
        "paid_twice": False,
        "sent_at": case.sent_at,
        "age_seconds": round((now - case.sent_at).total_seconds()),
        "grade": case.grade,
        "asked": case.asked,
        "witness": case.witness,
        "settles_at": case.settles_at,
        "gives_up_at": case.gives_up_at,
        "on_doubt": case.on_doubt,
        "outlook": outlook(case, now),
    }


def _when(at: datetime, now: datetime) -> str:
    return "with the next cycle" if at <= now else f"at {stamp(at)}"


def not_open(batch: int, row: int | None, fate: Mapping[int, tuple[Outcome, str | None]]) -> str:
    """Say why a case cannot be settled by hand: what became of it, or that there is none such."""
    case = f"{batch}" if row is None else f"{batch}:{row}"
    outcomes = {it for position, it in fate.items() if row in {None, position}}
    if not outcomes:
        return f"{case} is no case in doubt or held: `syncsvc doubt` lists them"
    if any(outcome is Outcome.OPEN for outcome, _ in outcomes):
        return f"{case} is in flight: it is in doubt once its answer is lost, and then can be settled"
    told = ", ".join(sorted(f"{outcome.name.lower()} ({grade or 'no proof'})" for outcome, grade in outcomes))
    return f"{case} is settled already: {told}; nothing was changed. `syncsvc doubt` lists what is open"
