"""The maps of a connector, as they stand in its table: what fields become, and samples that must map so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from syncsvc.settings import Plain, Settings, Text


class FieldRule(Settings):
    """Where one wallet field comes from: exactly one of `field`, `template`, `cel` and `value`.

    `values` translates what was found, `default` stands in where nothing was found or `values` does not list
    it, `format` says how a date is written in the CRM. Plain text in the file is a template.
    """

    field: Text | None = Field(
        default=None,
        examples=["Tier__c"],
        description="one field, as it is: flags and numbers keep their kind",
    )
    template: Text | None = Field(
        default=None,
        examples=["{FirstName} {LastName}"],
        description="text with {Field} in it; a rule that is plain text is one",
    )
    cel: Text | None = Field(
        default=None,
        examples=["FirstName != '' ? FirstName : LastName"],
        description="a CEL expression over the record's fields",
    )
    value: Plain | None = Field(default=None, examples=[True], description="a constant")
    values: dict[str, Plain] | None = Field(
        default=None,
        examples=[{"Gold": "card-gold", "Silver": "card-basic"}],
        description="translates what was found; the rest takes `default`, else the contact is refused",
    )
    default: Plain | None = Field(
        default=None, examples=["card-basic"], description="what stands where nothing was found"
    )
    format: Text | None = Field(
        default=None,
        examples=["%d/%m/%Y"],
        description="how a date is written in the CRM; YYYY-MM-DD and times need none",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"template": value}
        if not isinstance(value, Mapping | FieldRule):
            raise ValueError('is neither text nor a table; write "{Field}" or { field = "Field" }')  # noqa: TRY004 - pydantic collects ValueError only
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("field", "template", "cel", "value") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"needs exactly one of field, template, cel and value, has {found}")
        return self


class MemberMap(Settings):
    """The `member` table of a connector: wallet field = rule. What is not named here is not sent."""

    email: FieldRule = Field(
        examples=["{Email}"], description="the email that the member is known by, at most 254 characters"
    )
    brand_id: FieldRule | None = Field(
        default=None,
        examples=[{"field": "Brand__c", "values": {"North": "brand-1"}}],
        description="the brand; `wallet.brand_id` where it is empty",
    )
    name: FieldRule | None = Field(
        default=None, examples=["{FirstName} {LastName}"], description="the name; a new member needs one"
    )
    points: FieldRule | None = Field(
        default=None,
        examples=["{Loyalty_Points__c}"],
        description="the running total ever earned, a whole number from 0 on; without it no points are sent",
    )
    storecard: FieldRule | None = Field(
        default=None,
        examples=[{"field": "Tier__c", "values": {"Gold": "card-gold"}, "default": "card-basic"}],
        description="the storecard; `wallet.storecard` where it is empty",
    )
    phone_number: FieldRule | None = Field(
        default=None, examples=["{MobilePhone}"], description="a phone number, as text"
    )
    birthday: FieldRule | None = Field(default=None, examples=["{Birthdate}"], description="a date")
    licenseplate: FieldRule | None = Field(
        default=None, examples=["{License_Plate__c}"], description="a licence plate, as text"
    )
    start_date: FieldRule | None = Field(
        default=None, examples=["{Member_Since__c}"], description="a date: from when the membership holds"
    )
    expires_at: FieldRule | None = Field(
        default=None, examples=["{Member_Until__c}"], description="a date: the last day of the membership"
    )
    external_reference: FieldRule | None = Field(
        default=None,
        examples=["{Customer_Number__c}"],
        description="what the wallet calls the contact; the record id where nothing is mapped",
    )
    tag_id: FieldRule | None = Field(
        default=None, examples=["{Wallet_Tag__c}"], description="a tag of the wallet"
    )
    location_id: FieldRule | None = Field(
        default=None, examples=["{Store__c}"], description="the favourite location, by its external id"
    )
    welcome_email: FieldRule | None = Field(
        default=None,
        examples=[{"value": True}],
        description="a flag: asks for a welcome mail, on the first import of a member only",
    )
    update_mail: FieldRule | None = Field(
        default=None, examples=[{"value": True}], description="a flag: asks for a mail about the import"
    )

    def rules(self) -> Iterator[tuple[str, FieldRule]]:
        """Yield each mapped wallet field with its rule, in the order above."""
        for name in type(self).model_fields:
            rule = getattr(self, name)
            if rule is not None:
                yield name, rule


class WriteBackMap(Settings):
    """The `write_back` table of a connector: wallet fact = CRM field."""

    last_updated: Text | None = Field(
        default=None,
        examples=["Wallet_Last_Updated__c"],
        description="the field that gets the time when the wallet last moved this member's points",
    )
    status: Text | None = Field(
        default=None,
        examples=["Wallet_Status__c"],
        description="the field that gets: imported, held, in doubt, or quarantined with its reason",
    )

    @field_validator("status")
    @classmethod
    def _check_status(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and value == info.data.get("last_updated"):
            raise ValueError("is the field of last_updated; name another")
        return value


def _wallet_field(value: Any) -> Any:
    if value != "where" and value not in MemberMap.model_fields:
        raise ValueError(f"is no wallet field; known are {', '.join(MemberMap.model_fields)}")
    return value


WalletField = Annotated[StrictStr, BeforeValidator(_wallet_field)]


class MappingTest(Settings):
    """A sample record and what it must become: a member, a refusal of one field (or `where`), or excluded.

    Only the wallet fields that `member` names are compared; "" says that a field must not be set.
    """

    record: dict[str, Plain] = Field(
        examples=[{"Email": "ann@example.org", "Loyalty_Points__c": 120}],
        description="a made-up record, by CRM field",
    )
    record_id: Text = Field(default="sample", examples=["003000000000001"], description="its id")
    member: dict[WalletField, Plain] | None = Field(
        default=None,
        examples=[{"email": "ann@example.org", "points": 120}],
        description="the wallet fields to compare; empty text says that a field must not be set",
    )
    refused: WalletField | None = Field(
        default=None,
        examples=["points"],
        description="the wallet field that must refuse the record, or where",
    )
    excluded: StrictBool = Field(
        default=False, examples=[True], description="whether `where` must leave the record out"
    )

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if (self.member is not None) + (self.refused is not None) + self.excluded != 1:
            raise ValueError('needs exactly one of member = {...}, refused = "FIELD" and excluded = true')
        return self
