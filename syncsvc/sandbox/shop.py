"""A shop without a CRM: an exported file of its customers, and the organization file that reads it."""

from __future__ import annotations

from pathlib import Path


def write_shop(folder: Path, *, organization_id: str, wallet_url: str, brand_id: str) -> Path:
    """Write both into `folder`, and return the organization file; one row is not fit to become a member."""
    (folder / "customers.csv").write_text(_CUSTOMERS, encoding="utf-8")
    path = folder / "shop.toml"
    where = {"organization_id": organization_id, "wallet": wallet_url, "brand": brand_id}
    path.write_text(_ORGANIZATION.format(folder=folder, **where), encoding="utf-8")
    return path


_CUSTOMERS = """\
Customer;E-mail;Name;Points
C001;ann@example.org;Ann Abel;120
C002;ben@example.org;"Ben ""the Builder"" Berg";75
C003;chi@example.org;Chi Cruz;0
C004;dora at example.org;Dora Diaz;40
"""

_ORGANIZATION = """\
# Written by `syncsvc demo --keep`: a shop that exports its customers, and a wallet that is simulated.
organization_id = "{organization_id}"
first_run = "import"

[service]
state = "sqlite:///{folder}/shop.db"

[wallet]
base_url = "{wallet}"
token = {{ env = "ACME_WALLET_TOKEN" }}
brand_id = "{brand}"
storecard = "card-1"

[connectors.customers]
type = "csv"
path = "{folder}/customers.csv"
key = "Customer"
settle = "500ms"

[connectors.customers.member]
email = "{{E-mail}}"
name = "{{Name}}"
points = "{{Points}}"

[connectors.customers.write_back]
last_updated = "Wallet time"
status = "Wallet status"
"""
