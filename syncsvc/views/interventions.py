"""How quarantine and pauses are shown, and what follows from a decision on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from rich.markup import escape

from syncsvc.state.pauses import Pause
from syncsvc.state.quarantine import Choice, Refusal, Side
from syncsvc.views.paper import Paper, ago, empty_table, print_json
from syncsvc.watch.redaction import redacted

_FOLLOWS = {
    Side.MAPPING: "the next cycle reads every contact of {connector} again, and judges {them} anew",
    Side.EMAIL: "the next cycle reads every contact of {connector} again, and judges {them} anew",
    Side.WALLET: "the next cycle sends {them} again",
    Side.CRM: "the next cycle tries to write {them} back again",
}


def show_quarantine(
    found: Mapping[str, Sequence[Refusal]], *, limit: int, as_json: bool, now: datetime
) -> None:
    """Show what waits in quarantine, up to `limit` refusals of each organization."""
    if as_json:
        print_json({name: [_facts(it) for it in refusals[:limit]] for name, refusals in found.items()})
        return
    paper = Paper()
    for name, refusals in found.items():
        if not refusals:
            paper.line(f"{escape(name)}: nothing is in quarantine")
            continue
        table = empty_table(
            "connector", "record", "refused by", "field", "reason", "since", title=escape(name), left=6
        )
        for it in refusals[:limit]:
            since = f"{ago(it.since, now)}{', dropped' if it.dropped else ''}"
            words = (it.connector, it.record, it.side.value, it.field, redacted(it.reason), since)
            table.add_row(*map(escape, words))
        paper.table(table)
        if len(refusals) > limit:
            paper.line(f"… and {len(refusals) - limit:,} more (--limit 0 shows all)")
        paper.line(
            "mend the record in the CRM and it leaves by itself; else `syncsvc quarantine retry RECORD`, or "
            "`drop RECORD`"
        )


def _facts(refusal: Refusal) -> dict[str, object]:
    return asdict(refusal) | {"reason": redacted(refusal.reason)}


def question(name: str, chosen: Sequence[Refusal], choice: Choice) -> str:
    """Ask whether what follows from a choice is meant."""
    records = {(it.connector, it.record) for it in chosen}
    what = next(iter(records))[1] if len(records) == 1 else f"{len(records):,} records"
    return f"{name}: {choice} {what}? {consequence(chosen, choice)}"


def consequence(chosen: Sequence[Refusal], choice: Choice) -> str:
    """Say in a sentence what follows from a choice."""
    them = "it" if len(chosen) == 1 else "them"
    if choice is Choice.DROP:
        return (
            f"Nobody is told of {them} again until the contact changes in the CRM; it is not sent until then."
        )
    follows = dict.fromkeys(_FOLLOWS[it.side].format(connector=it.connector, them=them) for it in chosen)
    told = "; ".join(follows)
    return f"{told[:1].upper()}{told[1:]}."


def show_choice(decided: Mapping[str, Sequence[Refusal]], choice: Choice, *, by: str, as_json: bool) -> None:
    """Show what was decided, and what follows."""
    if as_json:
        print_json(
            {
                name: [_facts(it) | {"choice": choice, "by": by} for it in them]
                for name, them in decided.items()
            }
        )
        return
    paper = Paper()
    for name, them in decided.items():
        counts = Counter(it.connector for it in them)
        what = ", ".join(f"{count:,} of {connector}" for connector, count in counts.items())
        done = "dropped" if choice is Choice.DROP else "retried"
        paper.line(escape(f"{name}: {what} {done} by {by}. {consequence(them, choice)}"))


def told_of_pause(name: str, pause: Pause, now: datetime) -> str:
    """Say what is paused, by whom, since when, why, and how it goes on."""
    what = f"{pause.connector} of {name}" if pause.connector else f"{name} as a whole"
    why = f": {pause.reason}" if pause.reason else ""
    where = f" {pause.connector}" if pause.connector else ""
    return f"{what}, by {pause.by} {ago(pause.since, now)}{why} → syncsvc resume -o {name}{where}"
