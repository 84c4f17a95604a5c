"""Person accounts: an account and a contact that are one person, written through the account alone.

Whatever happens to such an account happens to its contact in the same transaction, stamps included. Facts are
from Salesforce Help 005305352 and the Change Data Capture guide of 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from syncsvc.sandbox.salesforce_refusals import ApiError
from syncsvc.sandbox.salesforce_tables import Field, Row, Table

_SHARED = {  # what both have: the account's name for it, the contact's
    "FirstName": "FirstName",
    "LastName": "LastName",
    "Salutation": "Salutation",
    "Phone": "Phone",
    "PersonEmail": "Email",
    "PersonMobilePhone": "MobilePhone",
    "PersonBirthdate": "Birthdate",
    "PersonHasOptedOutOfEmail": "HasOptedOutOfEmail",
    "PersonMailingCity": "MailingCity",
    "PersonMailingCountry": "MailingCountry",
    "PersonMailingPostalCode": "MailingPostalCode",
}
_STAMPS = ["CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById", "SystemModstamp"]
_SAME = ["OwnerId", "IsDeleted", *_STAMPS]


def enable(account: Table, contact: Table) -> None:
    """Give both objects the fields of person accounts, one for each custom field of a contact too."""
    flag = Field("IsPersonAccount", "boolean", updateable=False)
    twin = Field("PersonContactId", "reference", updateable=False, parent="Contact")
    shared = [_renamed(contact.fields[theirs.lower()], ours) for ours, theirs in _SHARED.items()]
    custom = [alias for field in contact.fields.values() if (alias := alias_of(field))]
    contact.fields[flag.name.lower()] = flag
    for field in [flag, twin, *shared, *custom]:
        account.fields.setdefault(field.name.lower(), field)


def alias_of(field: Field) -> Field | None:
    """Return the account's field for a custom field of its contact, None for a field that is not custom."""
    return _renamed(field, field.name[:-1] + "pc") if field.name.endswith("__c") else None


def mirrored(account: Row, contact: Row, master: Row | None) -> dict[str, Any]:
    """Return the contact of a person account as the account has it; `master` is what that was merged into."""
    names = {name: _theirs(name) for name in account if _theirs(name)}
    row = {**contact, "Id": account["PersonContactId"], "AccountId": account["Id"], "IsPersonAccount": True}
    row |= {theirs: account[ours] for ours, theirs in names.items()}
    row |= {name: account.get(name) for name in _SAME}
    return {**row, "Name": account.get("Name"), "MasterRecordId": master and master.get("PersonContactId")}


def refuse_names(row: Row, names: Iterable[str]) -> None:
    """Raise ApiError where fields of a person are written to a company, or a company's name to a person."""
    person = bool(row.get("IsPersonAccount"))
    wrong = [name for name in names if (name == "Name" if person else _theirs(name) and name != "Phone")]
    if wrong:
        told = f"Account: bad field names on insert/update call: {', '.join(wrong)}"
        raise ApiError(400, "INVALID_FIELD_FOR_INSERT_UPDATE", told, fields=tuple(wrong))


def refuse_contact(row: Mapping[str, Any]) -> None:
    """Raise ApiError for a contact that is a person account's: that is written through the account."""
    if row.get("IsPersonAccount"):
        told = "insufficient access rights on object id"
        raise ApiError(400, "INSUFFICIENT_ACCESS_OR_READONLY", told, fields=())


def _theirs(name: str) -> str:
    return _SHARED.get(name) or (name.removesuffix("pc") + "c" if name.endswith("__pc") else "")


def _renamed(field: Field, name: str) -> Field:
    return Field(name, field.type, field.length, updateable=field.updateable, calculated=field.calculated)
