"""Whose cycles are whose: each organization's are run by one process, the holder of its lease.

A process that runs cycles has a session, which ends where it is not renewed in time; its leases end with it.
A session that is over never comes back: its process begins another one, and claims anew. Every claim makes
the fence of its lease grow, and every write of a cycle shows its fence: see `StateServer.writing`.

Times that processes compare are told by the server's clock. How long a lease lasts is judged by a holder on
a clock of its own that never stops, counted from before it asked, so that it ends there first.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Engine

from syncsvc.errors import HeldError, StateError
from syncsvc.state import migrations
from syncsvc.state.lease import Lease, Session, steady
from syncsvc.state.mark import refuse_barred
from syncsvc.state.replicas import NOW, Holder, holder_of, holders, serving
from syncsvc.state.server import Server, answered, telling
from syncsvc.state.turns import key_of

LEASE = timedelta(seconds=30)
"""How long a session lasts after it was renewed; it is renewed each third of that."""

_BEATS = 3
_SPARE = 6  # a holder stops so large a part of its lease before it ends
_AGAIN = 1.0  # seconds until a renewal that failed is tried again
_CLAIM_WAITS = 2.0  # seconds, for a write under way

_JOIN = (
    "INSERT INTO replica (id, name, serves, expires_at)"
    f" VALUES (%(me)s, %(name)s, %(serves)s, {NOW} + %(ttl)s) RETURNING {NOW}"
)
_RENEW = (
    f"UPDATE replica SET expires_at = {NOW} + %(ttl)s WHERE id = %(me)s AND expires_at > {NOW}"
    f" RETURNING {NOW}"
)
_LEAVE = "DELETE FROM replica WHERE id = %(me)s"
_BURY = f"DELETE FROM replica WHERE expires_at <= {NOW}"
# What is read of sessions was committed before the organization's lock was taken, and so was every claim.
_CLAIM = (
    "INSERT INTO lease AS held (organization_id, owner, fence, taken_at)"
    f" SELECT %(organization)s, id, 1, {NOW} FROM replica WHERE id = %(me)s AND expires_at > {NOW}"
    " ON CONFLICT (organization_id) DO UPDATE"
    " SET owner = excluded.owner, fence = held.fence + 1, taken_at = excluded.taken_at"
    " WHERE held.owner IS NULL OR held.owner = excluded.owner"
    " OR NOT EXISTS (SELECT FROM replica WHERE replica.id = held.owner) RETURNING fence, taken_at"
)
_GIVE_BACK = "UPDATE lease SET owner = NULL WHERE organization_id = %(organization)s AND fence = %(fence)s"

_END = (
    "SELECT pg_terminate_backend(activity.pid) FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = %(high)s::bigint::oid"
    " AND objid = %(low)s::bigint::oid AND datname = current_database()"
    " AND wait_event = 'ClientRead' AND query_start < clock_timestamp() - %(idle)s * interval '1 ms'"
)


@dataclass(frozen=True, slots=True)
class Spread:
    """How leases are spread: the services that share them, and who else holds which organization."""

    replicas: int
    others: Mapping[int, Holder]


class Leases(Protocol):
    """The leases of a state."""

    @property
    def shared(self) -> bool:
        """Whether other processes may run cycles on this state."""

    def serve(self) -> None:
        """Count as one of those that organizations are spread over."""

    def alive(self) -> bool:
        """Whether leases can be held now."""

    def hold(self, organization: int) -> Lease:
        """Return the lease of an organization, claimed where we do not hold it; raises HeldError."""

    def spread(self) -> Spread:
        """Return how they are spread now; raises StateError."""

    def close(self) -> None:
        """Give everything back."""


class SoleLeases:
    """The leases of a state that one process at a time can open: they are all its own, and cost nothing."""

    shared = False

    def serve(self) -> None:
        """Do nothing: there is nobody else."""

    def alive(self) -> bool:
        """Return True."""
        return True

    def hold(self, organization: int) -> Lease:
        """Return the lease of an organization, which lasts."""
        return Lease(
            organization=organization,
            fence=0,
            since=None,
            name="",
            session=Session("", math.inf),
            give_back=lambda _: None,
            now=lambda: datetime.now(UTC),
        )

    def spread(self) -> Spread:
        """Return that all are ours."""
        return Spread(1, {})

    def close(self) -> None:
        """Do nothing."""


class SharedLeases:
    """The leases of a state on a server, of which this process has one session."""

    shared = True

    def __init__(
        self, server: Server, engine: Engine, schema: int, name: str, ttl: timedelta, *, older: bool = False
    ) -> None:
        """Begin no session yet; `name` is what others are told of this process.

        Whoever takes on an `older` state may claim what nobody else may.
        """
        self._server = server
        self._engine = engine
        self._schema = schema
        self._name = name
        self._ttl = ttl
        self._older = older
        self._serves = False
        self._session: Session | None = None
        self._held: dict[int, Lease] = {}
        self._offset = timedelta()  # of the server's clock, to that which began with our steady one
        self._born = datetime.now(UTC) - timedelta(seconds=steady())
        self._lock = threading.RLock()  # of who claims and gives back; renewing does not wait for it
        self._speaking = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._heart: Any = None  # the driver's own connection: it waits for no pool

    def serve(self) -> None:
        """Count as one of those that organizations are spread over."""
        with self._lock, telling(self._server):
            self._serves = True
            self._joined()

    def alive(self) -> bool:
        """Whether leases can be held now."""
        session = self._session
        return session is not None and not session.over and session.until > steady()

    def now(self) -> datetime:
        """Return the time by the server's clock, as it was last told."""
        return self._born + timedelta(seconds=steady()) + self._offset

    def hold(self, organization: int) -> Lease:
        """Return the lease of an organization; raises HeldError where another process has it.

        No write of its organization is under way where it is claimed. Raises StateError where no cycle may
        run on the state any more.
        """
        with self._lock, telling(self._server):
            held = self._held.get(organization)
            if held is not None and not held.lost:
                held.users += 1
                return held
            session = self._joined()
            fence, since = self._claimed(organization, session)
            lease = Lease(
                organization=organization,
                fence=fence,
                since=since,
                name=self._name,
                session=session,
                give_back=self._given_back,
                now=self.now,
            )
            self._held[organization] = lease
            return lease

    def spread(self) -> Spread:
        """Return how they are spread now."""
        with telling(self._server):
            with self._lock:
                me = self._joined().id
            with self._asking() as ask:
                ask(_BURY)
                replicas = len(serving(ask))
                held = holders(ask)
        others = {it: holder for it, (session, holder) in held.items() if session != me}
        return Spread(max(1, replicas), others)

    def beat(self) -> None:
        """Renew the session; where it is over, its leases are lost, and another one begins."""
        session = self._session
        if session is None:
            return
        with telling(self._server):
            asked = steady()
            renewed = self._tell(_RENEW, me=session.id)
            if renewed is not None:
                self._hear(session, asked, renewed)
                return
            session.over = True
            with self._lock:
                self._joined()

    def close(self) -> None:
        """Give everything back: no other process has to wait for it."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            session, self._session = self._session, None
            if session is not None:
                session.over = True
                with contextlib.suppress(Exception):  # else the session ends by itself
                    self._tell(_LEAVE, me=session.id)
            if self._heart is not None:
                self._heart.close()

    def _joined(self) -> Session:
        """Return the session, begun where there is none, as one that serves where that was asked for."""
        if self._session is None or self._session.over:
            session = Session(secrets.token_hex(8), 0.0)
            asked = steady()
            at = self._tell(_JOIN, me=session.id, name=self._name, serves=int(self._serves))
            self._hear(session, asked, at)
            self._session = session
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._thread.start()
        return self._session

    def _claimed(self, organization: int, session: Session) -> tuple[int, datetime]:
        key = key_of(self._schema, f"organization {organization}")
        with (
            self._engine.connect() as pooled,
            self._answered(pooled.connection.driver_connection, pooled.invalidate, _CLAIM_WAITS),
        ):
            connection = pooled.execution_options(
                begin=f"BEGIN; SET LOCAL lock_timeout = '{_CLAIM_WAITS:.3f}s';"
                f" SELECT pg_advisory_xact_lock({key})"
            )
            try:
                transaction = connection.begin()
            except self._engine.dialect.loaded_dbapi.errors.LockNotAvailable as error:
                connection.invalidate()
                self._end_stopped(key)
                raise HeldError("a write of this organization is under way; it is tried again") from error
            with transaction:
                cursor = connection.connection.cursor()
                cursor.execute(_BURY)
                cursor.execute(_CLAIM, {"organization": organization, "me": session.id})
                claimed = cursor.fetchone()
                if claimed is None:
                    raise _held(cursor, organization, self.now())
                fence, taken_at = claimed
                migrations.require_unmoved(connection)  # this process may have been frozen meanwhile
                if not self._older:  # and a copy may go on elsewhere
                    refuse_barred(self._server, connection)
        return fence, datetime.fromtimestamp(taken_at / 1000, UTC)

    def _end_stopped(self, key: int) -> None:
        """End a write whose process has stopped within a message: no timeout of the server would."""
        idle = self._ttl // timedelta(milliseconds=2)
        with self._asking() as ask:
            ask(_END, {"high": key % 2**64 >> 32, "low": key % 2**32, "idle": idle})

    def _given_back(self, lease: Lease) -> None:
        with self._lock:
            if lease.closed:
                return
            lease.users -= 1
            if lease.users:
                return
            over, lease.closed = lease.lost, True
            if self._held.get(lease.organization) is lease:
                del self._held[lease.organization]
        if not over:
            with contextlib.suppress(StateError), telling(self._server), self._asking() as ask:
                ask(_GIVE_BACK, {"organization": lease.organization, "fence": lease.fence})

    def _renew(self) -> None:
        beat = self._ttl.total_seconds() / _BEATS
        pause = beat
        while not self._closed.wait(pause):
            pause = beat
            try:
                self.beat()
            except Exception:  # noqa: BLE001 - whatever it is, without another try every lease would be lost
                pause = min(beat, _AGAIN)

    def _hear(self, session: Session, asked: float, at: int) -> None:
        heard = steady()
        told = datetime.fromtimestamp(at / 1000, UTC)
        self._offset = told - (self._born + timedelta(seconds=(asked + heard) / 2))
        session.until = asked + self._ttl.total_seconds() * (1 - 1 / _SPARE)

    def _tell(self, statement: str, **values: Any) -> Any:
        """Return a statement's one value, None for no row; on a connection that is kept for it."""
        values["ttl"] = self._ttl // timedelta(milliseconds=1)
        with self._speaking:
            if self._heart is None or self._heart.closed:
                pooled = self._engine.raw_connection()
                self._heart = pooled.driver_connection
                pooled.detach()
            with self._answered(self._heart, self._heart.close):
                found = self._heart.execute(statement, values)
                row = found.fetchone() if found.description else None
            return None if row is None else row[0]

    @contextlib.contextmanager
    def _asking(self) -> Any:
        with contextlib.closing(self._engine.raw_connection()) as pooled:
            connection: Any = pooled.driver_connection
            with self._answered(connection, pooled.invalidate):
                yield connection.execute

    @contextlib.contextmanager
    def _answered(self, connection: Any, discard: Callable[[], None], more: float = 0.0) -> Iterator[None]:
        """Wait for an answer as long as renewing does, and `more` seconds; discard what gave none, or failed.

        It may be cut off, or from a time when the server could only be read.
        """
        try:
            with answered(connection, self._server, self._ttl.total_seconds() / _BEATS + more):
                yield
        except Exception:
            discard()
            raise


def _held(cursor: Any, organization: int, now: datetime) -> HeldError:
    holder = holder_of(organization, cursor.execute)
    if holder is None:
        return HeldError("this process was not heard of for too long; it begins anew")
    left = max(1, math.ceil((holder.until - now).total_seconds()))
    gone = f"where it is gone, its lease ends by itself within {left} s"
    return HeldError(f"its cycles are run by {holder.name}; stop it, or let it do so; {gone}")
