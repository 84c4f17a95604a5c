"""The laws that are broken one at a time, each by a small change of the source, and who must notice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A change of one place in one file; `tests` are those of which at least one must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def source(self) -> Path:
        return ROOT / self.file

    def applies(self) -> bool:
        """Return whether the place is still there, once."""
        return self.source().read_text(encoding="utf-8").count(self.old) == 1

    def apply(self, copy: Path) -> None:
        path = copy / self.file
        path.write_text(path.read_text(encoding="utf-8").replace(self.old, self.new), encoding="utf-8")


_DOUBT = ("tests/engine/test_engine_doubt.py",)
_POINTS = ("tests/engine/test_engine_points.py",)
_IDENTITY = ("tests/engine/test_engine_identity.py",)
_POLLS = "tests/engine/test_engine_crash.py::test_a_death_at_any_write_is_made_good_by_polls_alone"
_LATE = ("tests/engine/test_engine_late.py",)
_FRESH = ("tests/engine/test_engine_fresh.py",)
_BRAKES = ("tests/engine/test_engine_brakes.py",)
_ELSEWHERE = ("tests/engine/test_engine_elsewhere.py",)
_WINDOW = ("tests/engine/test_engine_window.py",)
_HISTORY = ("tests/engine/test_engine_history.py",)
_STORIES = ("tests/engine/test_engine_stories.py",)
_LEASES = ("tests/unit/test_leases.py",)

MUTATIONS = (
    Mutation(
        "resend blindly",
        "syncsvc/stages/deliver.py",
        "unproven = Outcome.DOUBT if batch.lane is Lane.POINTS else Outcome.RELEASED",
        "unproven = Outcome.RELEASED",
        _DOUBT,
    ),
    Mutation(
        "credit on send",
        "syncsvc/stages/deliver.py",
        "unproven = Outcome.DOUBT if batch.lane is Lane.POINTS else Outcome.RELEASED",
        "unproven = Outcome.LANDED",
        _DOUBT,
    ),
    Mutation(
        "a batch abandoned by a death is sent again",
        "syncsvc/stages/settle.py",
        "outcome = Outcome.DOUBT if lane is Lane.POINTS else Outcome.RELEASED",
        "outcome = Outcome.RELEASED",
        _DOUBT,
    ),
    Mutation(
        "cursor first",
        "syncsvc/state/intake.py",
        "        heirs = merges.heirs(absorbed)\n",
        """        heirs = merges.heirs(absorbed)
        if not sweeping:
            with self._scope.database.writing() as connection:
                first = update(CONNECTOR).where(CONNECTOR.c.id == connector_id)
                connection.execute(first.values(cursor=cursor))
""",
        (_POLLS,),
    ),
    Mutation(
        "log read after a delivery instead of before it too",
        "syncsvc/cycle.py",
        "if outbox.has_due(Lane.POINTS, self.allowed) and self._look_at_log():",
        "if outbox.has_due(Lane.POINTS, self.allowed):",
        _FRESH,
    ),
    Mutation(
        "refuted before settle_after",
        "syncsvc/rules/settling.py",
        "still = min(doubt.age, doubt.quiet) > terms.settle_after",
        "still = True",
        _DOUBT,
    ),
    Mutation(
        "an entry that moved at any time is ours",
        "syncsvc/rules/settling.py",
        "return Finding.IN_WINDOW if opens <= sighting.at <= closes else Finding.ELSEWHERE",
        "return Finding.IN_WINDOW",
        _DOUBT,
    ),
    Mutation(
        "a short imported_members is success",
        "syncsvc/rules/settling.py",
        "if imported != rows:",
        "if imported is None:",
        ("tests/unit/test_settling.py", *_DOUBT),
    ),
    Mutation(
        "points are sent to an entry as fresh as the request",
        "syncsvc/state/outbox.py",
        '"b_fresh": to_ms(settled_before)',
        '"b_fresh": 2**62',
        _POINTS,
    ),
    Mutation(
        "a member in doubt is sent anyway",
        "syncsvc/state/due.py",
        "    conditions = [MEMBER.c.due == 1, MEMBER.c.open_batch.is_(None)]\n    if points",
        "    conditions = [MEMBER.c.due == 1]\n    if points",
        _DOUBT,
    ),
    Mutation(
        "members whose contacts a poll tells to be gone are expired, however many",
        "syncsvc/stages/brakes.py",
        "return single, [*leaving, *whole]",
        "return single, whole",
        _BRAKES,
    ),
    Mutation(
        "a state that knows nothing awards everybody again",
        "syncsvc/stages/brakes.py",
        "return totals, not self._hold(tripped), {it.brake for it in tripped}",
        "return totals, True, set()",
        _ELSEWHERE,
    ),
    Mutation(
        "members of a first read are sent though the log could not be asked about them",
        "syncsvc/stages/brakes.py",
        "return totals, False, {Brake.ELSEWHERE}",
        "return totals, True, {Brake.ELSEWHERE}",
        _ELSEWHERE,
    ),
    Mutation(
        "what this state has sent itself counts as imported elsewhere",
        "syncsvc/state/due.py",
        "return and_(MEMBER.c.log_value.is_not(None), ~ours.exists())",
        "return MEMBER.c.log_value.is_not(None)",
        _ELSEWHERE,
    ),
    Mutation(
        "a release lets everybody go who came in since",
        "syncsvc/stages/brakes.py",
        "asks = hold.released_by is not None  # others",
        "asks = False  # others",
        _ELSEWHERE,
    ),
    Mutation(
        "a log that shows fewer members ends their hold",
        "syncsvc/stages/brakes.py",
        "hold.released_by is None and totals.lasting and not totals.elsewhere:",
        "hold.released_by is None and totals.lasting < 0:",
        _ELSEWHERE,
    ),
    Mutation(
        "an adoption lets those go who come in next",
        "syncsvc/state/holds.py",
        "            _USED.run(connection, [(to_ms(now), hold_id)])  # who",
        "            # who",
        _ELSEWHERE,
    ),
    Mutation(
        "what stands for rows of an older state counts as sent by this one",
        "syncsvc/state/due.py",
        "or_(BATCH.c.cycle != RESTORED, decided.exists())",
        "or_(BATCH.c.id > 0, decided.exists())",
        _ELSEWHERE,
    ),
    Mutation(
        "awards above a limit are no reason to ask the log",
        "syncsvc/state/due.py",
        "owed = payable(points) > 0 if points",
        "owed = pays(points) if points",
        _ELSEWHERE,
    ),
    Mutation(
        "a status that the CRM refuses keeps the time from being written",
        "syncsvc/stages/write_back.py",
        "        refused = outcome.result is Written.REFUSED\n",
        "        refused = outcome.result is Written.MERGED\n",
        ("tests/engine/test_engine_write_back.py",),
    ),
    Mutation(
        "who let a sweep's contacts be gone is asked once more for their members",
        "syncsvc/stages/brakes.py",
        "looked_at = sum(self._let_go.values())",
        "looked_at = 0",
        _BRAKES,
    ),
    Mutation(
        "a mail is asked for again on a resend",
        "syncsvc/state/outbox.py",
        "        if not asking:\n            return\n",
        "        if asking:\n            return\n",
        _POINTS,
    ),
    Mutation(
        "a profile that landed asks for its mails again with points that a person lets go",
        "syncsvc/state/settlements.py",
        "silence(connection, connection.execute(kept, these).all())",
        "del kept, these",
        _LATE,
    ),
    Mutation(
        "points follow a row that the log does not show yet",
        "syncsvc/state/due.py",
        "            ~_may_move_yet(),\n",
        "",
        _LATE,
    ),
    Mutation(
        "a profile that is sent again after a late row asks for its mails again",
        "syncsvc/state/outbox.py",
        "if row.delivered == unsure(row.wanted) and",
        "if row.delivered == row.wanted and",
        _LATE,
    ),
    Mutation(
        "points are sent anew though the log takes back that they did not arrive",
        "syncsvc/state/late.py",
        "        _doubt_again(connection, scope, member, row)\n",
        "        pass\n",
        _LATE,
    ),
    Mutation(
        "a late row is noticed for ever",
        "syncsvc/state/late.py",
        "    _mark(connection, noticed, moves)\n",
        "",
        _LATE,
    ),
    Mutation(
        "a profile that a late row overwrote stays overwritten",
        "syncsvc/state/late.py",
        "    _send_again(connection, scope, again)\n",
        "",
        _LATE,
    ),
    Mutation(
        "success with an error inside is success",
        "syncsvc/rules/settling.py",
        """        body.get("success") is False
        or body.get("status") == "failed"
        or body.get("error")
        or body.get("errors")
""",
        "        not body\n",
        _DOUBT,
    ),
    Mutation(
        "points of a held row are let go, and once more when a person decides",
        "syncsvc/state/settlements.py",
        "frees = batch.lane == Lane.POINTS and outcome not in _UNSETTLED",
        "frees = batch.lane == Lane.POINTS and outcome is not Outcome.DOUBT",
        _DOUBT,
    ),
    Mutation(
        "brakes judged after the first request",
        "syncsvc/cycle.py",
        """            self._judge()
        if not self._send:
            return
""",
        """            if not self._send:
                self._judge()
                return
            self._deliver()
            self._judge()
""",
        _BRAKES,
    ),
    Mutation(
        "a merge forgets the history of what was merged",
        "syncsvc/state/membership.py",
        "self._inheritances.take(member, it.heir)",
        "pass",
        _HISTORY,
    ),
    Mutation(
        "an heir's points count before what it was paid elsewhere",
        "syncsvc/state/membership.py",
        "                if owner in later:",
        "                if False:",
        _HISTORY,
    ),
    Mutation(
        "what a survivor says is lost beside a deletion that names nobody",
        "syncsvc/state/merges.py",
        "                del self.contacts[old]",
        "                pass",
        _HISTORY,
    ),
    Mutation(
        "history waits for one who was never read alive, though its survivor names it",
        "syncsvc/state/merges.py",
        "if old in relays\n            or (",
        "if (",
        _STORIES,
    ),
    Mutation(
        "a contact takes along what was paid to a member that it never owned",
        "syncsvc/state/membership.py",
        "            if not self._owns(member, it.record_id):\n",
        "            if not self._owns(member, it.record_id) and member.owner_record is not None:\n",
        _STORIES,
    ),
    Mutation(
        "one history that comes twice counts twice",
        "syncsvc/state/counted.py",
        "known = own if origin == now else counts.parts.get(origin, 0)",
        "known = own if origin == now else 0",
        _STORIES,
    ),
    Mutation(
        "who comes back to a member that others emptied is awarded everything anew",
        "syncsvc/state/membership.py",
        "            self._inheritances.come_back(record_id, member)\n",
        "",
        _STORIES,
    ),
    Mutation(
        "what the owners of a connector were paid is forgotten as it is taken out",
        "syncsvc/state/store.py",
        "        set_aside(connection, retired)",
        "        pass",
        _STORIES,
    ),
    Mutation(
        "what was remembered is taken for a balance that was set",
        "syncsvc/state/inheritance.py",
        "        if not self._counts:\n            waited",
        "        if False:\n            waited",
        _STORIES,
    ),
    Mutation(
        "of two histories from one member only the larger is remembered",
        "syncsvc/state/inheritance.py",
        "both(found[key], it) if key in found else it",
        "max(found.get(key, it), it, key=lambda one: one.credited)",
        _STORIES,
    ),
    Mutation(
        "what was to be adopted of a contact is awarded to whom it is merged into",
        "syncsvc/state/first_reads.py",
        "return self._handed.get(record_id) or (",
        "return (",
        _STORIES,
    ),
    Mutation(
        "points in doubt that never arrived count at the heir of who shared them",
        "syncsvc/state/stakes.py",
        "        points = row.points if credited[row.position] else 0",
        "        points = row.points",
        _HISTORY,
    ),
    Mutation(
        "points of a row whose history has moved are credited to who was sent them",
        "syncsvc/state/settlements.py",
        "theirs = BATCH_ROW.c.account_id.is_(None)",
        "theirs = BATCH_ROW.c.position >= 0",
        _HISTORY,
    ),
    Mutation(
        "points on their way are not unsettled",
        "syncsvc/state/outbox.py",
        "unsettled=MEMBER.c.unsettled + BATCH_ROW.c.points",
        "unsettled=MEMBER.c.unsettled",
        _DOUBT,
    ),
    Mutation(
        "what was delivered before a lost profile is taken for what the wallet has",
        "syncsvc/state/settlements.py",
        "(unsure(delivered), member)",
        "(delivered, member)",
        _LATE,
    ),
    Mutation(
        "who is told gone and only later merged has no history to bring",
        "syncsvc/state/membership.py",
        "        elif it.heir is None:  #",
        "        elif False:  #",
        _IDENTITY,
    ),
    Mutation(
        "what its owner was owed stays with a member that passes to another",
        "syncsvc/state/membership.py",
        "member.earned = points  # its profile is read with the next read; they are known",
        "pass",
        _IDENTITY,
    ),
    Mutation(
        "neither before a delivery nor within it is the log read",
        "syncsvc/cycle.py",
        "            read_log=self._read_logs,\n",
        "            read_log=lambda: None,\n",
        _FRESH,
    ),
    Mutation(
        "the owner flips with edits",
        "syncsvc/state/membership.py",
        "        if owns or member.owner_record is None:\n",
        "        if True:\n",
        _IDENTITY,
    ),
    Mutation(
        "connectors are stored in another order than the configured one",
        "syncsvc/round.py",
        "            for connector, pages in asked:\n",
        "            for connector, pages in reversed(asked):\n",
        ("tests/engine/test_engine_ahead.py",),
    ),
    Mutation(
        "a first read that ended without any page is complete",
        "syncsvc/stages/pull.py",
        "    if not brought:\n",
        "    if False:\n",
        ("tests/engine/test_engine_ahead.py",),
    ),
    Mutation(
        "sudden emptiness is data",
        "syncsvc/round.py",
        "            bury=bury,\n",
        "            bury=True,\n",
        _IDENTITY,
    ),
    Mutation(
        "a fall is forgotten: later growth is awarded without making it good",
        "syncsvc/state/outbox.py",
        'user["points"] = row.earned - row.credited - row.unsettled',
        'user["points"] = row.earned - row.unsettled',
        _POINTS,
    ),
    Mutation(
        "a profile that a till made look applied stays as it was",
        "syncsvc/state/settlements.py",
        "            send_unproven_again(connection, self._scope, batch_id)\n",
        "            pass\n",
        _WINDOW,
    ),
    Mutation(
        "the next points leave while the lost request may still be carried out, and be taken for them",
        "syncsvc/stages/settle.py",
        "quiet_for = batch.claimed_at + terms.settle_after - now",
        "quiet_for = timedelta()",
        _WINDOW,
    ),
    Mutation(
        "what is sent again in case counts as a change that trips a brake",
        "syncsvc/rules/brakes.py",
        "totals.changed - totals.leaving - totals.again",
        "totals.changed - totals.leaving",
        _WINDOW,
    ),
    Mutation(
        "points that may be paid twice are shown no more though nobody has looked into them",
        "syncsvc/state/twice.py",
        "    DECISION.c.choice.in_(list(Found)),\n",
        "",
        ("tests/engine/test_engine_twice.py",),
    ),
    Mutation(
        "polls: a link is trusted while it is young",
        "syncsvc/remote/links.py",
        "middle.at + lag + _CLOCK_STEP <= began",
        "middle.at <= began",
        ("tests/unit/test_links.py",),
    ),
    Mutation(
        "polls: after a sweep only its link is asked",
        "syncsvc/remote/links.py",
        "base=Mark(at=began - lag)",
        "base=mark",
        (
            "tests/connectors/test_dynamics.py::test_changes_while_a_sweep_reads_are_found_though_its_link_counts_past_them",
        ),
    ),
    Mutation(
        "write-backs: a deleted contact is created anew",
        "connectors/dynamics_api.py",
        "If-Match: *\\r\\n",
        "",
        ("tests/connectors/test_dynamics.py::test_write_to_a_deleted_contact_does_not_create_it_anew",),
    ),
    Mutation(
        "polls: after a sweep nothing is read again that was listed late",
        "connectors/pipedrive.py",
        "PollCursor(began - self._lag,",
        "PollCursor(began,",
        ("tests/connectors/test_pipedrive_conformance.py",),
    ),
    Mutation(
        "a field that was deleted is an empty one",
        "connectors/pipedrive.py",
        "            if empty:\n",
        "            if False:\n",
        ("tests/connectors/test_pipedrive.py::test_field_that_was_deleted_is_an_error_and_never_empty",),
    ),
    Mutation(
        "a write without a look at its fence",
        "syncsvc/state/postgres.py",
        "if lease is not None and _last(connection) != lease.fence:",
        "if lease is not None and _last(connection) is None:",
        _LEASES,
    ),
    Mutation(
        "a session that is over comes back",
        "syncsvc/state/leases.py",
        'WHERE id = %(me)s AND expires_at > {NOW}"\n    f" RETURNING',
        'WHERE id = %(me)s"\n    f" RETURNING',
        _LEASES,
    ),
    Mutation(
        "a claim that does not wait for a write under way",
        "syncsvc/state/leases.py",
        'SELECT pg_advisory_xact_lock({key})"',
        'SELECT {key}"',
        _LEASES,
    ),
    Mutation(
        "a request that goes on when its lease is over",
        "syncsvc/remote/deadline.py",
        "if lease <= 0:",
        "if lease <= -math.inf:",
        ("tests/unit/test_transport.py",),
    ),
    Mutation(
        "a file is written by who lost the lease",
        "connectors/csv_results.py",
        "            require()\n",
        "",
        ("tests/connectors/test_csv.py",),
    ),
    Mutation(
        "tables are changed under a process of an older version",
        "syncsvc/state/postgres.py",
        "                    require_nobody_older(server, engine)\n",
        "",
        ("tests/unit/test_postgres.py",),
    ),
    Mutation(
        "an original that was copied is gone on with",
        "syncsvc/state/leases.py",
        "                    refuse_barred(self._server, connection)\n",
        "                    pass\n",
        ("tests/engine/test_engine_copy.py",),
    ),
    Mutation(
        "a server that lacks what was sent is gone on with",
        "syncsvc/state/recognition.py",
        "if known or history != self._history:",
        "if not known or history != self._history:",
        ("tests/engine/test_engine_lag.py",),
    ),
    Mutation(
        "what is proven for who is out of sight counts twice",
        "syncsvc/state/stakes.py",
        "part = read_parts(row.parts), Origin(source, life), min(row.owed, points)",
        "part = read_parts(row.parts), Origin(source, life), 0",
        ("tests/engine/test_engine_stories.py",),
    ),
    Mutation(
        "totals that are mapped later are awarded where they were to be adopted",
        "syncsvc/state/first_reads.py",
        "if owns and none and means in _ADOPTED:",
        "if False:",
        ("tests/engine/test_engine_first_run.py", "tests/engine/test_engine_restore.py"),
    ),
    Mutation(
        "a copy is made in the place of a state that knows more",
        "syncsvc/state/mark.py",
        "if known.covers(mark) or not mark.batch:",
        "if known.batch or not mark.batch:",
        ("tests/engine/test_engine_copy.py", "tests/unit/test_older_states.py"),
    ),
    Mutation(
        "an older state is taken for the newest",
        "syncsvc/state/mark.py",
        "self.batch >= other.batch",
        "self.batch >= 0",
        ("tests/unit/test_older_states.py",),
    ),
    Mutation(
        "what is owed after a restore is sent",
        "syncsvc/state/restoration.py",
        "_OWED > 0, ",
        "_OWED > 10**9, ",
        ("tests/engine/test_engine_restore.py",),
    ),
    Mutation(
        "what a restored state does not know of its contacts is taken for proven",
        "syncsvc/state/membership.py",
        "if it not in linked or member.id != linked[it]]",
        "if member.id != linked.get(it)]",
        _STORIES,
    ),
    Mutation(
        "who came to own a member since a state was put back is taken for its owner of before",
        "syncsvc/state/restoration.py",
        "            connection.execute(_LESSER, ",
        "            connection.execute(_READ, ",
        _STORIES,
    ),
    Mutation(
        "after a restore, one whose owner nobody has read is proven by its entry",
        "syncsvc/state/restoration.py",
        "        CONTACT.c.state == ContactState.ACTIVE,\n        CONTACT.c.seen >= _SWEEP,\n",
        "",
        _STORIES,
    ),
    Mutation(
        "after a restore an entry proves what may have been paid to another member",
        "syncsvc/state/restoration.py",
        "            if not self._found.read:\n",
        "            if False:\n",
        _STORIES,
    ),
    Mutation(
        "points in doubt are forgotten where another took the member over meanwhile",
        "syncsvc/state/inheritance.py",
        "                self._make_up(it, member)\n                self._stake(record_id, it, member)\n",
        "                self._make_up(it, member)\n",
        _STORIES,
    ),
    Mutation(
        "what is written back later reaches only records that change",
        "syncsvc/state/store.py",
        "        _write_anew(connection, row_id, known[name], fields)\n",
        "        pass\n",
        ("tests/engine/test_engine_write_back.py",),
    ),
    Mutation(
        "a row that sets the balance passes a brake of points",
        "syncsvc/state/due.py",
        "        conditions.append(payable(points) <= _MOST)\n",
        "        pass\n",
        ("tests/engine/test_engine_brakes.py",),
    ),
    Mutation(
        "a copy of a state without a mark is run",
        "syncsvc/state/mark.py",
        "or not (known.batch or mark.batch):",
        "or not mark.batch:",
        ("tests/unit/test_older_states.py",),
    ),
    Mutation(
        "the original of a copy is run again",
        "syncsvc/state/mark.py",
        "        if known.barred:\n            return told(path, known.barred)\n",
        "",
        ("tests/engine/test_engine_copy.py",),
    ),
    Mutation(
        "what nobody else took in time is kept for good",
        "syncsvc/rules/sharing.py",
        " if until > now and name in running}",
        " if name in running}",
        ("tests/unit/test_sharing.py",),
    ),
)
