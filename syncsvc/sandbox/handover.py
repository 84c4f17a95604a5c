"""What `demo --keep` leaves: a world that works, files to go on with by hand, and how."""

from __future__ import annotations

import shlex
import socket

from syncsvc.sandbox.shop import write_shop
from syncsvc.sandbox.world import BRAND, World


def hand_over(world: World, *, every: str, settle_after: str) -> str:
    """Write the files for going on by hand into the world's folder, and return how; no failure is left."""
    world.mend()  # a story that ended early may have left a failure that is still to come
    listen = f"127.0.0.1:{_free_port()}"
    config = world.write_organization(every=every, settle_after=settle_after, listen=listen)
    *_, record = world.hubspot_people()  # the last one stands in HubSpot alone, so it owns its member
    place = {"organization_id": world.wallet.organization_id, "wallet_url": world.wallet_url}
    shop = write_shop(world.folder, brand_id=BRAND, **place)
    variables = {**world.environment, "SYNCSVC_CONFIG": str(config), "MEMBER": record.email}
    environment = world.folder / "env.sh"
    environment.touch(mode=0o600)
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    environment.write_text("".join(lines), encoding="utf-8")
    return (
        f"the simulators go on until Ctrl-C; the files stay in {world.folder}. In another terminal:\n"
        f"  . {environment}\n"
        "  syncsvc status\n"
        f"  curl -X PATCH {world.hubspot_url}/crm/v3/objects/contacts/{record.record_id} "
        '-H "Authorization: Bearer $HUBSPOT_TOKEN" -H "Content-Type: application/json" '
        f'-d \'{{"properties": {{"loyalty_points": "{record.points + 100}"}}}}\'\n'
        "  syncsvc once\n"
        '  syncsvc explain "$MEMBER"\n'
        f"  syncsvc run                 # and look at http://{listen}/\n"
        f"with no CRM at all: syncsvc -c {shop} once, change {world.folder}/customers.csv, once again;\n"
        f"or point an organization file of your own at wallet {world.wallet_url}, HubSpot "
        f"{world.hubspot_url} and Salesforce {world.salesforce_url} (ca_file {world.ca_file})."
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
