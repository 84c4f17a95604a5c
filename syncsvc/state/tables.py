"""Every table of the state database.

    organization ─┬─ connector ─── contact ──┐
                  ├─ brand ─────── member ◄──┘   (brand_id, email): what it should be, what is proven
                  │                  ├─ payload             what its next row would carry
                  │                batch ─── batch_row     one import request, frozen before it is sent
                  │                  │
                  │                ledger                  every point that was credited, and on what proof
                  ├─ inheritance, stake, counted           what contacts bring along: see `histories`
                  ├─ quarantine                            what was refused, and why
                  ├─ hold                                  what a brake keeps back, and who let it go
                  ├─ decision                              what a person decided on a row in doubt or held
                  ├─ pause, quarantine_decision            see `interventions`
                  ├─ plan ──────── plan_row                what was planned lately, to tell what changed since
                  ├─ lease ─────── replica                 which process runs its cycles, while it lasts
                  └─ cycle                                 what a cycle did, unless it did nothing

The classes map tables and nothing else: bulk work goes through SQLAlchemy Core on their `__table__`.
Times are whole milliseconds since 1970 UTC, fingerprints 16 bytes, points whole numbers.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, SmallInteger
from sqlmodel import Field, SQLModel

from syncsvc.state.columns import (
    count_column,
    fingerprint_column,
    small_column,
    table,
    time_column,
    where_index,
)


class MetaRow(SQLModel, table=True):
    """Facts about this database: the key of its fingerprints."""

    __tablename__ = "meta"
    name: str = Field(primary_key=True)
    value: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class OrganizationRow(SQLModel, table=True):
    """One configured organization: its name, the wallet's id for it, and what its points meant last."""

    __tablename__ = "organization"
    id: int = Field(primary_key=True)
    name: str = Field(unique=True)
    organization_id: str = Field(unique=True)
    points: str
    expires: int = small_column()  # whether members expire whose contacts go: then every profile is kept


class ConnectorRow(SQLModel, table=True):
    """One connector: where its polling and its sweep stand."""

    __tablename__ = "connector"
    __table_args__ = (Index("uq_connector_name", "organization_id", "name", unique=True),)
    id: int = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    name: str
    position: int = small_column()
    cursor: str | None = None
    moved_at: int | None = time_column()
    sweep_cursor: str | None = None
    sweep: int = count_column()
    swept_at: int | None = time_column()
    partial: int | None = time_column()  # contacts it did not bring, where it could not tell every record
    sweep_asked: int = count_column()  # the number of the sweep that a person asked for
    mapping: str | None = None
    writes: str | None = None  # the CRM field of each fact that is written back, as JSON
    retired: int = small_column()  # it is not configured any more
    trouble: str | None = None
    calls_allowed: int | None = time_column()  # in a day, as the CRM told at `calls_told_at`
    calls_left: int | None = time_column()
    calls_told_at: int | None = time_column()


class BrandRow(SQLModel, table=True):
    """One brand: what is known about its import log."""

    __tablename__ = "brand"
    __table_args__ = (Index("uq_brand_name", "organization_id", "brand_id", unique=True),)
    id: int = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    brand_id: str
    log_read_at: int | None = time_column()
    resolution_ms: int | None = time_column()
    slowest_ms: int = count_column()
    log_known: int = count_column()  # members that have an entry
    log_short_at: int | None = time_column()  # since when it leaves out members that it has shown
    witness_value: str | None = None  # the log's entry of the witness
    witness_log_at: int | None = time_column()
    witness_stray_at: int | None = time_column()  # when it last moved without a batch of ours
    batch_limit: int | None = None  # rows a batch may have while a bad row is being searched


class MemberRow(SQLModel, table=True):
    """A member of a brand: what it should be, and what is proven to have reached the wallet.

    `earned = credited + unsettled + owed`; `unsettled` are points in flight, in doubt or held.
    `due` is kept by every write: something is to be sent that nothing forbids.
    """

    __tablename__ = "member"
    __table_args__ = (
        Index("uq_member_email", "brand", "email_key", unique=True),
        where_index("due = 1", "ix_member_due", "brand", "id"),
        where_index("late_until IS NOT NULL", "ix_member_late", "brand"),
    )
    id: int = Field(primary_key=True)
    brand: int = Field(foreign_key="brand.id")
    email_key: str
    email: str | None = None  # the spelling sent for life, where it differs from the key
    owner_connector: int | None = Field(default=None, foreign_key="connector.id")
    owner_record: str | None = None
    wanted: bytes | None = fingerprint_column()
    delivered: bytes | None = fingerprint_column()
    refused: bytes | None = fingerprint_column()
    earned: int = count_column()
    credited: int = count_column()
    unsettled: int = count_column()
    open_batch: int | None = Field(default=None, foreign_key="batch.id")
    quiet_until: int | None = time_column()
    late_until: int | None = time_column()  # until when an older row may overwrite what is delivered
    log_value: str | None = None
    log_at: int | None = time_column()
    due: int = small_column()
    introduced: int = small_column()
    first_read: int = small_column()  # the first read of a connector brought it
    expired: int = small_column()  # it was sent an expiry of ours: what is sent from then on must lift it


class PayloadRow(SQLModel, table=True):
    """What a member's next row would carry, see `payloads`; gone once it is delivered."""

    __tablename__ = "payload"
    member_id: int = Field(primary_key=True, foreign_key="member.id")
    content: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class ContactRow(SQLModel, table=True):
    """A CRM record as it was last read, by digest only."""

    __tablename__ = "contact"
    __table_args__ = (
        Index("ix_contact_member", "member_id"),
        where_index("write_due = 1", "ix_contact_write_due", "connector_id"),
        {"sqlite_with_rowid": False},
    )
    connector_id: int = Field(primary_key=True, foreign_key="connector.id")
    record_id: str = Field(primary_key=True)
    member_id: int | None = Field(default=None, foreign_key="member.id")
    state: int = small_column()
    fingerprint: bytes | None = fingerprint_column()
    points: int | None = time_column()
    seen: int = count_column()
    written_at: int | None = time_column()
    written_status: str | None = None
    write_due: int = small_column()
    first_read: int = small_column()  # its connector's first read could not map it: adopted once it can


class BatchRow(SQLModel, table=True):
    """One import request: durable before it leaves, its outcome under the same id."""

    __tablename__ = "batch"
    __table_args__ = (
        Index("ix_batch_brand", "brand", "id"),
        Index("ix_batch_cycle", "cycle"),
        where_index("outcome < 3", "ix_batch_open", "brand"),
        {"sqlite_autoincrement": True},
    )
    id: int = Field(primary_key=True)
    brand: int = Field(foreign_key="brand.id")
    cycle: str
    lane: int = small_column()
    outcome: int = small_column()
    row_count: int = count_column()
    points: int = count_column()
    digest: bytes = Field(sa_column=Column(LargeBinary(16), nullable=False))
    claimed_at: int = time_column(nullable=False)
    sent_at: int | None = time_column()  # by the wallet's clock
    moved: int = count_column()  # rows whose log entries were seen to move
    moved_at: int | None = time_column()  # our clock when one of its rows' log entries was last seen to move
    settled_at: int | None = time_column()
    status: int | None = None
    import_id: str | None = None
    imported: int | None = None
    detail: str | None = None
    witness: int | None = None  # what became of the witness's row, None where it did not ride
    witness_before: str | None = None
    witness_until: int | None = time_column()  # our clock when that was settled
    pruned: int = small_column()  # its rows are older than the history that is kept


class BatchMemberRow(SQLModel, table=True):
    """One row of a batch: what was sent of a member, and what became of it."""

    __tablename__ = "batch_row"
    __table_args__ = (
        Index("ix_batch_row_member", "member_id"),
        where_index("account_id IS NOT NULL", "ix_batch_row_account", "account_id"),
        where_index("late_at IS NOT NULL", "ix_batch_row_late", "late_at"),
        {"sqlite_with_rowid": False},
    )
    batch_id: int = Field(primary_key=True, foreign_key="batch.id")
    position: int = Field(sa_column=Column(SmallInteger, primary_key=True, autoincrement=False))
    member_id: int = Field(foreign_key="member.id")
    fingerprint: bytes | None = fingerprint_column()
    points: int = count_column()
    log_before: str | None = None
    outcome: int = small_column()
    grade: str | None = None
    account_id: int | None = Field(default=None, foreign_key="member.id")  # whose points, if another's
    late_at: int | None = time_column()  # the log's time of a move that says it may have landed after all


class LedgerRow(SQLModel, table=True):
    """Points that count as credited, and on what proof; each row's digest covers the one before it."""

    __tablename__ = "ledger"
    __table_args__ = (
        Index("ix_ledger_member", "member_id"),
        Index("ix_ledger_organization", "organization_id", "id"),
        {"sqlite_autoincrement": True},
    )
    id: int = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    member_id: int = Field(foreign_key="member.id")
    batch_id: int | None = Field(default=None, foreign_key="batch.id")
    entry: int = small_column()
    points: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: int = time_column(nullable=False)
    grade: str
    digest: bytes = Field(sa_column=Column(LargeBinary(16), nullable=False))


class QuarantineRow(SQLModel, table=True):
    """A contact, a member row or a write-back that was refused, waiting for a change or a person.

    `side` says by whom: `mapping`, `wallet`, `crm`, or `email` for an email change that waits for a decision.
    """

    __tablename__ = "quarantine"
    connector_id: int = Field(primary_key=True, foreign_key="connector.id")
    record_id: str = Field(primary_key=True)
    side: str = Field(primary_key=True)
    field: str
    reason: str
    since: int = time_column(nullable=False)
    dropped_at: int | None = time_column()  # since when a person does not want to be told of it


class WriteRetryRow(SQLModel, table=True):
    """A record that could not be written back: how often it was tried, and when it is tried again."""

    __tablename__ = "write_retry"
    connector_id: int = Field(primary_key=True, foreign_key="connector.id")
    record_id: str = Field(primary_key=True)
    tries: int = small_column()
    next_at: int = time_column(nullable=False)
    log_at: int | None = time_column()  # of the member when it was tried: a later one is worth a try at once


class HoldRow(SQLModel, table=True):
    """What a brake keeps back until a person lets it go."""

    __tablename__ = "hold"
    __table_args__ = (Index("ix_hold_organization", "organization_id"),)
    id: int = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    brake: str
    detail: str
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    since: int = time_column(nullable=False)
    released_at: int | None = time_column()
    released_by: str | None = None
    used_at: int | None = time_column()


class DecisionRow(SQLModel, table=True):
    """What a person decided on a batch row in doubt or held, and what the log showed of it then."""

    __tablename__ = "decision"
    __table_args__ = (
        Index("ix_decision_organization", "organization_id"),
        Index("ix_decision_member", "member_id"),
    )
    id: int = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    batch_id: int = Field(foreign_key="batch.id")
    position: int = small_column()
    member_id: int = Field(foreign_key="member.id")
    choice: str
    points: int = Field(sa_column=Column(BigInteger, nullable=False))
    held: int = small_column()
    finding: str
    log_before: str | None = None
    log_now: str | None = None
    decided_at: int = time_column(nullable=False)
    decided_by: str


class PlanRow(SQLModel, table=True):
    """A plan that was made lately; its digest covers every row and every point."""

    __tablename__ = "plan"
    __table_args__ = (Index("uq_plan_digest", "organization_id", "digest", unique=True),)
    id: int = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    digest: str
    made_at: int = time_column(nullable=False)
    members: int = count_column()
    points: int = count_column()
    brakes: str


class PlannedRow(SQLModel, table=True):
    """One row of a plan, in order of `owner`, the CRM record it comes from; its content is a keyed digest."""

    __tablename__ = "plan_row"
    __table_args__ = ({"sqlite_with_rowid": False},)
    plan_id: int = Field(primary_key=True, foreign_key="plan.id")
    position: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    owner: str
    content: bytes | None = fingerprint_column()
    points: int = count_column()


class CycleRow(SQLModel, table=True):
    """What a cycle did; a cycle that did nothing leaves no row."""

    __tablename__ = "cycle"
    __table_args__ = (Index("ix_cycle_organization", "organization_id", "started_at"),)
    id: str = Field(primary_key=True)
    organization_id: int = Field(foreign_key="organization.id")
    started_at: int = time_column(nullable=False)
    finished_at: int = time_column(nullable=False)
    outcome: str
    facts: str


class ReplicaRow(SQLModel, table=True):
    """A process that may hold leases, until `expires_at` by the server's clock; none comes back."""

    __tablename__ = "replica"
    id: str = Field(primary_key=True)
    name: str
    serves: int = small_column()  # whether organizations are spread over it
    expires_at: int = time_column(nullable=False)


class LeaseRow(SQLModel, table=True):
    """Who runs an organization's cycles; nobody where `owner` is none of the replicas."""

    __tablename__ = "lease"
    organization_id: int = Field(primary_key=True, foreign_key="organization.id")
    owner: str | None = None
    fence: int = time_column(nullable=False)
    taken_at: int = time_column(nullable=False)


META = table(MetaRow)
ORGANIZATION = table(OrganizationRow)
CONNECTOR = table(ConnectorRow)
BRAND = table(BrandRow)
MEMBER = table(MemberRow)
PAYLOAD = table(PayloadRow)
CONTACT = table(ContactRow)
BATCH = table(BatchRow)
BATCH_ROW = table(BatchMemberRow)
LEDGER = table(LedgerRow)
QUARANTINE = table(QuarantineRow)
WRITE_RETRY = table(WriteRetryRow)
HOLD = table(HoldRow)
DECISION = table(DecisionRow)
PLAN = table(PlanRow)
PLAN_ROW = table(PlannedRow)
CYCLE = table(CycleRow)
REPLICA = table(ReplicaRow)
LEASE = table(LeaseRow)
