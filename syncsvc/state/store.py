"""The state of one organization: everything the stages remember, one method a transaction.

Store ── intake         pages of contacts and their cursors; sweeps
├─ outbox         what is due, claimed before it is sent
├─ settlements    what became of it
├─ doubts         what a person decides became of it
├─ twice          what a person finds out about points that may be paid twice
├─ confirmations  what the import log says
├─ write_backs    what the CRM should hold
├─ allowances     what CRMs allow in a day
├─ holds          what brakes keep back
├─ pauses         what a person stopped
├─ quarantine     what was refused, and what a person makes of it
├─ plans          what was planned lately
├─ preview        what a delivery would do
├─ reports        what an operator asks
├─ lives          what happened to a member
├─ accounts       what the books say
├─ audit          whether the books balance
├─ retention      how long history is kept
├─ erasure        what is left of a person who is forgotten
├─ alerted        what people were told last
└─ restoration    what may have been sent after a state that was put back
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select, update

from syncsvc.config import OnGone, OrganizationConfig
from syncsvc.errors import ConfigurationError
from syncsvc.rules.fingerprint import Fingerprinter
from syncsvc.rules.intake import ContactState
from syncsvc.rules.mapping import MAILS
from syncsvc.state import payloads
from syncsvc.state.accounts import Accounts
from syncsvc.state.alerted import Alerted
from syncsvc.state.allowances import Allowances
from syncsvc.state.audit import Audit
from syncsvc.state.codes import WriteDue
from syncsvc.state.confirmations import Confirmations
from syncsvc.state.database import Database, change_row
from syncsvc.state.doubts import Doubts
from syncsvc.state.erasure import Erasure
from syncsvc.state.holds import Holds
from syncsvc.state.intake import IntakeStore
from syncsvc.state.lease import Lease
from syncsvc.state.lives import Lives
from syncsvc.state.mark import FINGERPRINT_KEY
from syncsvc.state.outbox import Outbox
from syncsvc.state.pauses import Pauses
from syncsvc.state.plans import Plans
from syncsvc.state.preview import Preview
from syncsvc.state.quarantine import Quarantine, Side
from syncsvc.state.reports import Reports
from syncsvc.state.restoration import Restoration
from syncsvc.state.retention import Retention
from syncsvc.state.retirement import set_aside
from syncsvc.state.scope import Rules, Scope
from syncsvc.state.settlements import Settlements
from syncsvc.state.tables import (
    BRAND,
    CONNECTOR,
    CONTACT,
    MEMBER,
    META,
    ORGANIZATION,
    QUARANTINE,
    WRITE_RETRY,
)
from syncsvc.state.twice import Twice
from syncsvc.state.write_backs import WriteBacks

_HELD_AS = {"last_updated": "written_at", "status": "written_status"}
"""The column that knows what a record holds of a fact that is written back."""


@dataclass(frozen=True, slots=True)
class Store:
    """See the module; `connectors` are the row ids of the configured connectors, in order of ownership."""

    connectors: dict[str, int]
    fingerprinter: Fingerprinter
    intake: IntakeStore
    outbox: Outbox
    settlements: Settlements
    doubts: Doubts
    twice: Twice
    confirmations: Confirmations
    write_backs: WriteBacks
    allowances: Allowances
    holds: Holds
    pauses: Pauses
    quarantine: Quarantine
    plans: Plans
    preview: Preview
    reports: Reports
    lives: Lives
    accounts: Accounts
    audit: Audit
    erasure: Erasure
    retention: Retention
    alerted: Alerted
    restoration: Restoration


def open_store(database: Database, organization: OrganizationConfig, lease: Lease | None = None) -> Store:
    """Return the state of a configured organization, its rows made where it is new.

    With its lease it is for cycles, and what follows from a configuration that changed is made true; without
    one it is to be looked at, and for a person's decisions. Then nothing is written where every row is there:
    a server that may only be read can be looked at.
    """
    names = list(organization.connectors)
    organization_id = register(database, organization)
    ours = database.of(organization_id, lease)
    made = _made(ours, organization_id, names) if lease is None else None
    if made is None:
        with ours.writing() as connection:
            made = _fingerprint_key(connection), _connectors(connection, organization_id, names)
            if lease is not None:
                _take_effect(connection, organization_id, organization, made[1])
    if lease is not None:
        ours.reached(0)  # before the first batch: it is told from a copy without a mark
    key, connectors = made
    return _assemble(ours, organization, organization_id, connectors, Fingerprinter(key))


def register(database: Database, organization: OrganizationConfig) -> int:
    """Return the row id of a configured organization, its row made where it is new.

    Raises ConfigurationError where the state knows its name or its id as another organization's.
    """
    known = known_organization(database, organization)
    if known is not None:
        return known
    with database.writing() as connection:
        _fingerprint_key(connection)
        return _organization(connection, organization)


def claim_all(database: Database) -> None:
    """Keep every other process from running cycles until the database is closed; raises HeldError."""
    with database.reading() as connection:
        known = list(connection.scalars(select(ORGANIZATION.c.id)))
    for organization_id in known:
        database.leases.hold(organization_id)


def _assemble(
    database: Database,
    organization: OrganizationConfig,
    organization_id: int,
    connectors: dict[str, int],
    fingerprinter: Fingerprinter,
) -> Store:
    rules = Rules(
        points=organization.wallet.points,
        first_run=organization.first_run,
        on_email_change=organization.policy.on_email_change,
        expire_gone=organization.policy.on_gone is OnGone.EXPIRE,
        mails=any(name in MAILS for it in organization.connectors.values() for name, _ in it.member.rules()),
        witness=organization.wallet.witness,
        zone=organization.wallet.zone,
    )
    written = {connectors[name]: it.write_back for name, it in organization.connectors.items()}
    telling = {it for it, fields in written.items() if fields.status}
    writing = telling | {it for it, fields in written.items() if fields.last_updated}
    scope = Scope(database, organization_id, rules, fingerprinter, connectors, writing, telling)
    settlements = Settlements(scope)
    restoration = Restoration(scope, settlements)
    return Store(
        connectors,
        fingerprinter,
        IntakeStore(scope, restoration),
        Outbox(scope, organization.wallet),
        settlements,
        Doubts(scope, settlements, organization.wallet.settle_after),
        Twice(scope),
        Confirmations(scope, organization.wallet),
        WriteBacks(scope),
        Allowances(scope),
        Holds(scope),
        Pauses(scope),
        Quarantine(scope),
        Plans(scope.database, organization_id),
        Preview(scope),
        Reports(scope),
        Lives(scope),
        Accounts(scope),
        Audit(scope),
        Erasure(scope),
        Retention(scope, organization.policy.keep_history),
        Alerted(scope),
        restoration,
    )


def _fingerprint_key(connection: Connection) -> bytes:
    known = connection.scalar(select(META.c.value).where(META.c.name == FINGERPRINT_KEY))
    if known is None:
        known = secrets.token_bytes(32)
        connection.execute(META.insert().values(name=FINGERPRINT_KEY, value=known))
    return known


def _organization(connection: Connection, config: OrganizationConfig) -> int:
    """Return the organization's row; raises ConfigurationError where name and organization do not belong."""
    mine = or_(ORGANIZATION.c.name == config.name, ORGANIZATION.c.organization_id == config.organization_id)
    known = connection.execute(select(ORGANIZATION).where(mine)).all()
    if not known:
        row = {
            "name": config.name,
            "organization_id": config.organization_id,
            "points": config.wallet.points,
        }
        made = ORGANIZATION.insert().values(row).returning(ORGANIZATION.c.id)
        return int(connection.execute(made).scalar_one())
    refuse_another(config, [(it.name, it.organization_id) for it in known])
    return int(known[0].id)


def is_known(database: Database, config: OrganizationConfig) -> bool:
    """Return whether the state knows an organization; raises ConfigurationError where it knows another."""
    with database.reading() as connection:
        known = connection.execute(select(ORGANIZATION.c.name, ORGANIZATION.c.organization_id)).all()
    return refuse_another(config, [(name, organization_id) for name, organization_id in known])


def refuse_another(config: OrganizationConfig, known: Collection[tuple[str, str]]) -> bool:
    """Return whether an organization is among those `known`, each by its name and its id.

    Raises ConfigurationError where its name or its id is another's.
    """
    mine = (config.name, config.organization_id)
    for name, organization_id in known:
        if (name == mine[0]) != (organization_id == mine[1]):
            told = f"{config.name}: the state knows organization {organization_id} under the name {name}"
            remedy = f'set name = "{name}" and that organization_id, or name another state'
            raise ConfigurationError([f"{told}; a change would award every point anew: {remedy}"])
    return mine in known


def known_organization(database: Database, config: OrganizationConfig) -> int | None:
    """Return the row id of an organization, None where the state does not know it; nothing is written."""
    mine = and_(ORGANIZATION.c.name == config.name, ORGANIZATION.c.organization_id == config.organization_id)
    with database.reading() as connection:
        return connection.scalar(select(ORGANIZATION.c.id).where(mine))


def not_configured(database: Database, organizations: Collection[OrganizationConfig]) -> list[str]:
    """Return the names of the organizations that a state knows and that are none of these."""
    ours = {(it.name, it.organization_id) for it in organizations}
    with database.reading() as connection:
        known = connection.execute(select(ORGANIZATION.c.name, ORGANIZATION.c.organization_id)).all()
    return sorted(name for name, number in known if (name, number) not in ours)


def _take_effect(
    connection: Connection, organization_id: int, config: OrganizationConfig, connectors: Mapping[str, int]
) -> None:
    """Make true what follows from a configuration that changed since the last cycles were run."""
    mine = ORGANIZATION.c.id == organization_id
    before = connection.execute(select(ORGANIZATION).where(mine)).one()
    now = {"points": config.wallet.points, "expires": int(config.policy.on_gone is OnGone.EXPIRE)}
    # What points mean is another now, or every profile must be at hand: both are learned by reading anew.
    if before.points != now["points"] or before.expires < now["expires"]:
        _read_anew(connection, CONNECTOR.c.organization_id == organization_id)
    if before.expires > now["expires"]:
        brands = select(BRAND.c.id).where(BRAND.c.organization_id == organization_id)
        settled = and_(MEMBER.c.due == 0, MEMBER.c.unsettled == 0, MEMBER.c.open_batch.is_(None))
        same = MEMBER.c.wanted.is_not_distinct_from(MEMBER.c.delivered)
        unused = and_(MEMBER.c.brand.in_(brands), settled, same, MEMBER.c.late_until.is_(None))
        connection.execute(payloads.dropped(unused))
    if (before.points, before.expires) != (now["points"], now["expires"]):
        connection.execute(update(ORGANIZATION).where(mine).values(now))
    _retire(connection, organization_id, list(connectors.values()))
    listed = select(CONNECTOR.c.name, CONNECTOR.c.writes).where(
        CONNECTOR.c.organization_id == organization_id
    )
    known = dict(connection.execute(listed).all())
    for name, row_id in connectors.items():
        fields = config.connectors[name].write_back.model_dump(exclude_none=True)
        _write_anew(connection, row_id, known[name], fields)


def _read_anew(connection: Connection, chosen: ColumnElement[bool]) -> None:
    """Let the next cycle read every contact of these connectors as if it had changed."""
    owned = CONTACT.c.connector_id.in_(select(CONNECTOR.c.id).where(chosen))
    connection.execute(update(CONTACT).where(owned).values(fingerprint=None))
    connection.execute(update(CONNECTOR).where(chosen).values(mapping=None))


def _write_anew(connection: Connection, connector_id: int, known: str | None, fields: dict[str, str]) -> None:
    """Let every record get what its connector writes to other fields now than those that are `known`.

    Where nothing is known, in a state of an older version, every record is looked at once.
    """
    writes = json.dumps(fields, sort_keys=True)
    if writes == known:
        return
    mine = CONTACT.c.connector_id == connector_id
    shown: ColumnElement[bool] = CONTACT.c.state.in_([ContactState.ACTIVE, ContactState.QUARANTINED])
    refused = and_(QUARANTINE.c.connector_id == connector_id, QUARANTINE.c.side == Side.CRM)
    if known is None:  # what was refused was refused by these fields
        shown = and_(shown, CONTACT.c.record_id.not_in(select(QUARANTINE.c.record_id).where(refused)))
    else:
        moved = [fact for fact, field in json.loads(known).items() if fields.get(fact) != field]
        if moved:  # what another field holds is not known
            connection.execute(update(CONTACT).where(mine).values({_HELD_AS[fact]: None for fact in moved}))
        connection.execute(delete(WRITE_RETRY).where(WRITE_RETRY.c.connector_id == connector_id))
        connection.execute(delete(QUARANTINE).where(refused))
    due = WriteDue.YES if fields else WriteDue.NO
    others = CONTACT.c.write_due != due
    connection.execute(update(CONTACT).where(mine, shown, others).values(write_due=due))
    change_row(connection, CONNECTOR, connector_id, {"writes": writes})


def _retire(connection: Connection, organization_id: int, connectors: Sequence[int]) -> None:
    """Free the members of connectors that are not configured any more: whoever else knows them may own them.

    What their owners were paid is remembered, as of who is gone. The connectors that stay are read anew, and
    so is one that comes back.
    """
    others = and_(CONNECTOR.c.organization_id == organization_id, CONNECTOR.c.id.not_in(connectors))
    retired = connection.scalars(select(CONNECTOR.c.id).where(others, CONNECTOR.c.retired == 0)).all()
    if retired:
        set_aside(connection, retired)
        free = {"owner_connector": None, "owner_record": None}
        connection.execute(update(MEMBER).where(MEMBER.c.owner_connector.in_(retired)).values(free))
        _read_anew(connection, CONNECTOR.c.organization_id == organization_id)
        connection.execute(update(CONNECTOR).where(others).values(retired=1, cursor=None, sweep_cursor=None))
    connection.execute(
        update(CONNECTOR).where(CONNECTOR.c.id.in_(connectors), CONNECTOR.c.retired == 1).values(retired=0)
    )


def _made(
    database: Database, organization_id: int, names: Sequence[str]
) -> tuple[bytes, dict[str, int]] | None:
    """Return the key and the connectors' row ids, in order; None where any of it is to be made or moved."""
    listed = select(CONNECTOR.c.name, CONNECTOR.c.id, CONNECTOR.c.position)
    with database.reading() as connection:
        key = connection.scalar(select(META.c.value).where(META.c.name == FINGERPRINT_KEY))
        known = connection.execute(listed.where(CONNECTOR.c.organization_id == organization_id)).all()
    places = {it.name: it for it in known}
    in_place = all(
        name in places and places[name].position == position for position, name in enumerate(names)
    )
    return (key, {name: places[name].id for name in names}) if key is not None and in_place else None


def _known_connectors(connection: Connection, organization_id: int) -> dict[str, int]:
    listed = select(CONNECTOR.c.name, CONNECTOR.c.id).where(CONNECTOR.c.organization_id == organization_id)
    return dict(connection.execute(listed).all())


def _connectors(connection: Connection, organization_id: int, names: Sequence[str]) -> dict[str, int]:
    known = _known_connectors(connection, organization_id)
    for position, name in enumerate(names):
        if name in known:
            moved = CONNECTOR.c.id == known[name], CONNECTOR.c.position != position
            connection.execute(update(CONNECTOR).where(*moved).values(position=position))
        else:
            row = {"organization_id": organization_id, "name": name, "position": position}
            known[name] = connection.execute(
                CONNECTOR.insert().values(row).returning(CONNECTOR.c.id)
            ).scalar_one()
    return {name: known[name] for name in names}
