"""The tables of points histories that contacts bring along when they are merged, or when their emails change.

inheritance     what a contact was paid at members that it left, until it owns the member it maps to
stake           rows without an outcome in which it, or the member that it owns by now, has a share
counted         what a member counts of others by now, in its own `credited`
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer
from sqlmodel import Field, SQLModel

from syncsvc.state.columns import count_column, small_column, table, where_index


class InheritanceRow(SQLModel, table=True):
    """Points history that a contact brings along once it owns its member: of a merge, or of another email."""

    __tablename__ = "inheritance"
    __table_args__ = (where_index("owed > 0", "ix_inheritance_owed", "member_id"),)
    connector_id: int = Field(primary_key=True, foreign_key="connector.id")
    record_id: str = Field(primary_key=True)
    member_id: int = Field(primary_key=True, foreign_key="member.id")
    points: int = Field(sa_column=Column(BigInteger, nullable=False))
    owed: int = count_column()  # of these points, what the member was yet to be paid
    life: int = count_column()  # of the member, as it was left: see `counted`
    parts: str | None = None  # JSON: [member, life, points] of what was paid elsewhere


class StakeRow(SQLModel, table=True):
    """A contact's stake in an unsettled row of a member it left: it counts the points too, if they land."""

    __tablename__ = "stake"
    __table_args__ = (Index("ix_stake_record", "connector_id", "record_id"),)
    id: int = Field(primary_key=True)
    batch_id: int = Field(foreign_key="batch.id", index=True)
    position: int = small_column()
    points: int = count_column()
    member_id: int = Field(foreign_key="member.id")
    connector_id: int = Field(foreign_key="connector.id")
    record_id: str
    heir_id: int | None = Field(default=None, foreign_key="member.id", index=True)  # once it owns one


class CountedRow(SQLModel, table=True):
    """What of a member's credited points was paid to another one, and came with a contact."""

    __tablename__ = "counted"
    heir_id: int = Field(primary_key=True, foreign_key="member.id")
    source_id: int = Field(primary_key=True, foreign_key="member.id")
    # Of the source; below zero, of points of its row in that batch, which were another account's by then.
    life: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    points: int = count_column()


INHERITANCE = table(InheritanceRow)
STAKE = table(StakeRow)
COUNTED = table(CountedRow)
