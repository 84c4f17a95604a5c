"""How values are bound in statements for a server, and read from it."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def adapters() -> Any:
    """Return how values are bound: each kind always in one way, so that statements can stay prepared.

    The driver keeps every class that it is given for good.
    """
    from psycopg import adapters as usual  # noqa: PLC0415 - an extra
    from psycopg.adapt import AdaptersMap  # noqa: PLC0415 - an extra
    from psycopg.types.numeric import Int8Dumper, IntLoader  # noqa: PLC0415 - an extra
    from psycopg.types.string import StrDumperUnknown as StrDumper  # noqa: PLC0415 - an extra

    class Text(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)

    chosen = AdaptersMap(usual)
    chosen.register_dumper(str, Text)  # a NUL that the server cannot hold is in no key: see `rules.intake`
    chosen.register_dumper(int, Int8Dumper)
    chosen.register_loader("numeric", IntLoader)  # the sum of whole numbers is one
    return chosen
