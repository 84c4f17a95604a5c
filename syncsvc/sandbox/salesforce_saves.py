"""What the org does with writes of the API's user: field access, locks, rules, triggers, all or none.

Facts are from the REST API Developer Guide and Salesforce Help of 2026.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from syncsvc.sandbox.salesforce_org import Org, modified
from syncsvc.sandbox.salesforce_persons import refuse_contact, refuse_names
from syncsvc.sandbox.salesforce_refusals import ApiError, CallError
from syncsvc.sandbox.salesforce_tables import Row, Table, Value, long_id, stamp

Item = tuple[Table, object, Mapping[str, Any]]  # the object, the id that was given, and the fields to write
Outcome = str | list[ApiError]  # the record's id, or what refused it

_ASSIGNED = frozenset({"Lead", "Account"})
_ROLLED_BACK = (
    "Record rolled back because not all records were valid and the request was using AllOrNone header"
)


class Saves:
    """Carries out writes; those that it accepts have committed when it returns."""

    def __init__(self, org: Org) -> None:
        """Write into `org`."""
        self._org = org

    def save(
        self, items: Sequence[Item], *, create: bool, all_or_none: bool, allow_duplicates: bool, assign: bool
    ) -> list[Outcome]:
        """Carry out writes of the API's user, all of them new records or none.

        Returns for each its id, or the errors that refused it. Raises CallError where one fails all.
        """
        with self._org.lock:
            results: list[Row | list[ApiError]] = []
            taken: set[str] = set()
            for item in items:
                try:
                    row = self._written(item, taken, create=create)
                    results.append(
                        self._ruled(item[0], row, allow_duplicates=allow_duplicates, assign=assign)
                    )
                except CallError:
                    raise
                except ApiError as error:
                    results.append([error])
            self._run_triggers([table for table, _, _ in items], results)
            if all_or_none and any(isinstance(result, list) for result in results):
                undone = [ApiError(400, "ALL_OR_NONE_OPERATION_ROLLED_BACK", _ROLLED_BACK, fields=())]
                results = [result if isinstance(result, list) else undone for result in results]
            for (table, _, _), result in zip(items, results, strict=True):
                if not isinstance(result, list):
                    self._org.put(table, result, self._org.clock.now(), 0)
            return [result if isinstance(result, list) else result["Id"] for result in results]

    def locate(self, table: Table, record_id: object) -> Row:
        """Return the committed row that a write names; raises ApiError where it cannot be written."""
        key = long_id(record_id) if isinstance(record_id, str) else None
        if key is None or not key.startswith(table.prefix):
            told = f"{table.name} ID: id value of incorrect type: {record_id}"
            raise ApiError(400, "MALFORMED_ID", told, fields=("Id",))
        row = table.rows.get(key)
        if row is None and key not in self._org.purged[table.name]:
            raise ApiError(404, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", fields=())
        if row is None or row.get("IsDeleted"):
            raise ApiError(404, "ENTITY_IS_DELETED", "entity is deleted", fields=())
        if (
            self._org.awaits_commit(key)
            or key in self._org.knobs.locked
            or self._org.random.random() < self._org.knobs.lock_chance
        ):
            told = f"unable to obtain exclusive access to this record or 1 records: {key}"
            raise ApiError(400, "UNABLE_TO_LOCK_ROW", told, fields=())
        if table.name == "Contact":
            refuse_contact(row)
        if row.get("IsConverted"):
            raise ApiError(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", fields=())
        return row

    def _written(self, item: Item, taken: set[str], *, create: bool) -> dict[str, Any]:
        table, record_id, fields = item
        values, now = self._api_values(table, fields), stamp(self._org.clock.now())
        if create:
            if record_id is not None:
                told = "cannot specify Id in an insert call"
                raise ApiError(400, "INVALID_FIELD_FOR_INSERT_UPDATE", told, fields=("Id",))
            born = self._org.born(table, values, now, self._org.user_id)
            self._refuse_names(table, born, values)
            return born
        if record_id is None:
            raise ApiError(400, "MISSING_ARGUMENT", "Id not specified in an update call", fields=("Id",))
        old = self.locate(table, record_id)
        if old["Id"] in taken:
            raise ApiError(400, "DUPLICATE_VALUE", f"duplicate id specified: {old['Id']}", fields=("Id",))
        taken.add(old["Id"])
        self._refuse_names(table, old, values)
        return modified(old, values, now, self._org.user_id)

    def _refuse_names(self, table: Table, row: Row, values: Mapping[str, Value]) -> None:
        if self._org.has_persons and table.name == "Account":
            refuse_names(row, values)

    def _ruled(
        self, table: Table, row: dict[str, Any], *, allow_duplicates: bool, assign: bool
    ) -> Row | list[ApiError]:
        required = [kind.name for kind in table.fields.values() if kind.required]
        if table.name == "Account" and row.get("IsPersonAccount"):
            required = ["LastName"]
        if missing := [name for name in required if not row.get(name)]:
            told = f"Required fields are missing: [{', '.join(missing)}]"
            raise ApiError(400, "REQUIRED_FIELD_MISSING", told, fields=tuple(missing))
        if rules := self._org.knobs.invalid.get(row["Id"]):
            return [ApiError(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", told, fields=()) for told in rules]
        if self._org.knobs.duplicate_rule and not allow_duplicates and self._has_twin(table, row):
            raise ApiError(400, "DUPLICATES_DETECTED", "Use one of these records?", fields=())
        if assign and self._org.knobs.assign_to and table.name in _ASSIGNED:
            row["OwnerId"] = self._org.knobs.assign_to
        return row

    def _run_triggers(self, tables: Sequence[Table], results: list[Row | list[ApiError]]) -> None:
        for table, group in itertools.groupby(range(len(tables)), key=lambda place: tables[place]):
            rows = {place: row for place in group if not isinstance(row := results[place], list)}
            blown = any(row["Id"] in self._org.knobs.poisoned for row in rows.values())
            edits = self._org.values(table, self._org.knobs.trigger_edits.get(table.name, {}))
            for place, row in rows.items():
                results[place] = {**row, **edits}
                if blown:
                    told = f"{table.name}Trigger: execution of BeforeUpdate caused by: System.LimitException"
                    results[place] = [ApiError(400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", told, fields=())]

    def _has_twin(self, table: Table, row: Row) -> bool:
        email = (row.get("Email") or "").casefold()
        return bool(email) and any(
            (other.get("Email") or "").casefold() == email
            and other["Id"] != row["Id"]
            and not other["IsDeleted"]
            for other in table.rows.values()
        )

    def _api_values(self, table: Table, fields: Mapping[str, Any]) -> dict[str, Value]:
        kinds = {name: self._org.field(table, name) for name in fields}
        for name, kind in kinds.items():
            if kind is None:
                told = f"No such column '{name}' on sobject of type {table.name}"
                error = CallError if self._org.knobs.unknown_field_fails_call else ApiError
                raise error(400, "INVALID_FIELD", told)
        refused = tuple(kind.name for kind in kinds.values() if kind and not self._org.writable(table, kind))
        if refused:
            told = (
                f"Unable to create/update fields: {', '.join(refused)}. Please check the security settings of"
                " this field and verify that it is read/write for your profile or permission set."
            )
            raise ApiError(400, "INVALID_FIELD_FOR_INSERT_UPDATE", told, fields=refused)
        return self._org.values(table, fields)
