"""Doubts: each row in doubt or held with its evidence, and what will become of it when, for a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from syncsvc.config import WalletConfig
from syncsvc.rules.settling import Decision, Finding, Grade, Terms, find, grade_of
from syncsvc.stages.settle import conditions
from syncsvc.state.doubts import Evidence, Suspect
from syncsvc.state.store import Store


@dataclass(frozen=True, slots=True)
class Case:
    """A row in doubt or held.

    `sent_at` is by the wallet's clock. `grade` is that of the evidence for it having landed, None where there
    is none, and `asked` the least that settles by itself. `witness` is what the log shows of the batch's
    witness, None where none rode. It is refuted at `settles_at` where its entry stays
    unmoved (None where it has moved), and `on_doubt` becomes of it at `gives_up_at`; both are None once it is
    held. A `restored` one may have been sent at any time after `sent_at`, or not at all.
    """

    suspect: Suspect
    evidence: Evidence
    sent_at: datetime
    grade: str | None
    asked: str
    witness: Evidence | None
    settles_at: datetime | None
    gives_up_at: datetime | None
    on_doubt: str
    restored: bool = False

    @property
    def id(self) -> str:
        """What `syncsvc doubt` calls it."""
        return f"{self.suspect.batch}:{self.suspect.row}"


def terms_of(wallet: WalletConfig) -> Terms:
    """Return the configured terms of settling."""
    return Terms(wallet.settle_after, wallet.give_up_after, Grade(wallet.evidence), Decision(wallet.on_doubt))


def cases(store: Store, wallet: WalletConfig) -> list[Case]:
    """Return every case of an organization, the oldest first, judged as the next cycle would."""
    suspects = {(it.batch, it.row): it for it in store.doubts.suspects()}
    found = []
    for batch in store.settlements.doubtful(held=True):
        terms, doubt = conditions(batch, terms_of(wallet))
        findings = {
            position: find(sighting, doubt, terms.settle_after) for position, sighting in batch.rows.items()
        }
        grade = grade_of(list(findings.values()), doubt.witness)
        witness = None
        if doubt.witness is not None:
            seen = batch.witness_seen
            witness = Evidence(seen.before, seen.now, doubt.witness.name.lower())
        for position, finding in findings.items():
            suspect = suspects.get((batch.id, position))
            if suspect is None:
                continue
            sighting, held = batch.rows[position], suspect.held
            proven = finding is Finding.IN_WINDOW or (
                finding is Finding.ELSEWHERE and grade is not Grade.WINDOW
            )
            settles = finding is Finding.UNMOVED and not held
            found.append(
                Case(
                    suspect=suspect,
                    evidence=Evidence(sighting.before, sighting.now, finding.name.lower()),
                    sent_at=batch.sent_at,
                    grade=str(grade) if proven else None,
                    asked=str(terms.evidence),
                    witness=witness,
                    settles_at=max(batch.claimed_at, batch.moved_at) + terms.settle_after
                    if settles
                    else None,
                    gives_up_at=None if held else batch.claimed_at + terms.give_up_after,
                    on_doubt=str(terms.on_doubt),
                    restored=batch.restored,
                )
            )
    return found
