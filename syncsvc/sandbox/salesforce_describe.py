"""The describe resources: the objects of an org, and their fields as the API's user may see them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from syncsvc.sandbox.salesforce_http import MAX_RECORDS, addressed, answer
from syncsvc.sandbox.salesforce_org import Org
from syncsvc.sandbox.salesforce_tables import Field, Table


class Describe:
    """Describes an org."""

    def __init__(self, org: Org) -> None:
        """Describe `org`."""
        self._org = org

    def everything(self, _: Request, __: bytes) -> Response:
        """Answer with the objects of the org."""
        listed = [_summary(table) for table in self._org.tables]
        return answer({"encoding": "UTF-8", "maxBatchSize": MAX_RECORDS, "sobjects": listed})

    def basic(self, request: Request, _: bytes) -> Response:
        """Answer with what is known of an object but its fields."""
        return answer({"objectDescribe": _summary(addressed(self._org, request)), "recentItems": []})

    def full(self, request: Request, _: bytes) -> Response:
        """Answer with an object and the fields that the API's user may see."""
        table = addressed(self._org, request)
        fields = [_field(kind, writable=self._org.writable(table, kind)) for kind in self._org.visible(table)]
        return answer({**_summary(table), "fields": fields, "childRelationships": [], "recordTypeInfos": []})


def _summary(table: Table) -> dict[str, Any]:
    verbs = "createable deletable queryable replicateable retrieveable searchable undeletable updateable"
    able = dict.fromkeys(verbs.split(), True)
    return {"name": table.name, "label": table.name, "keyPrefix": table.prefix, "custom": False, **able}


def _field(kind: Field, *, writable: bool) -> dict[str, Any]:
    parent = (
        {"referenceTo": [kind.parent], "relationshipName": kind.name.removesuffix("Id")}
        if kind.parent
        else {}
    )
    custom = kind.name.endswith("__c")
    return {
        "name": kind.name,
        "label": kind.name,
        "type": kind.type,
        "length": kind.length,
        "createable": writable,
        "updateable": writable,
        "calculated": kind.calculated,
        "calculatedFormula": "Hidden__c" if kind.calculated and not kind.rolled_up else None,
        "custom": custom,
        "nillable": not kind.required and kind.type != "boolean",
        "filterable": kind.filterable,
        "sortable": kind.filterable,
        "permissionable": custom,
        "unique": False,
        "idLookup": kind.type == "id" or kind.name == "Email",
        "picklistValues": [{"value": value, "active": True} for value in kind.values or ()],
        "restrictedPicklist": kind.values is not None,
        "referenceTo": [],
        "relationshipName": None,
        **parent,
    }
