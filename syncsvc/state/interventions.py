"""The tables of what people did: who stopped what, and what they decided on the refusals in quarantine."""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from syncsvc.state.columns import table, time_column


class PauseRow(SQLModel, table=True):
    """A pause of a connector, or of its whole organization where that is None; `ended_at` once it is over."""

    __tablename__ = "pause"
    __table_args__ = (
        Index(
            "ix_pause_open",
            "organization_id",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )
    id: int = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    connector_id: int | None = Field(default=None, foreign_key="connector.id")
    since: int = time_column(nullable=False)
    paused_by: str
    reason: str | None = None
    ended_at: int | None = time_column()
    ended_by: str | None = None


class QuarantineDecisionRow(SQLModel, table=True):
    """What a person decided on one refusal in quarantine: to retry it, or to drop it."""

    __tablename__ = "quarantine_decision"
    __table_args__ = (Index("ix_quarantine_decision_record", "connector_id", "record_id"),)
    id: int = Field(primary_key=True)
    connector_id: int = Field(foreign_key="connector.id")
    record_id: str
    side: str
    choice: str
    decided_at: int = time_column(nullable=False)
    decided_by: str


PAUSE = table(PauseRow)
QUARANTINE_DECISION = table(QuarantineDecisionRow)
