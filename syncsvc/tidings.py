"""What a cycle found that people should know, as log events; each names its remedy."""

from __future__ import annotations

from syncsvc.rules.brakes import Tripped
from syncsvc.rules.completeness import Completeness
from syncsvc.stages.pull import Pulled
from syncsvc.state.late import LandedLate
from syncsvc.watch.log import logger

log = logger()


def tell_of_reading(pulled: Pulled) -> None:
    """Tell what one connector's reading met, in as many events as there are kinds of trouble."""
    for record, name in pulled.refusals:
        log.debug("contact_quarantined", record=record, field=name)
    if pulled.cursor_lost:
        log.warning("cursor_lost", remedy="everything is read again")
    if pulled.partial:
        log.warning("sweep_partial", remedy="mend what is in quarantine: until then nobody is gone")
    if pulled.fallen:
        log.warning("points_fell", members=pulled.fallen)


def tell_of_brake(name: str, tripped: Tripped) -> None:
    """Tell that a brake holds something from now on."""
    log.error("brake_tripped", brake=name, detail=tripped.detail, remedy="look, then release it")


def tell_of_log(brand_id: str, found: Completeness) -> None:
    """Tell that a brand's import log has become short, or whole again."""
    tell, event = (log.error, "import_log_short") if found.short else (log.info, "import_log_whole")
    tell(event, brand=brand_id, shown=found.shown, known=found.known)


def tell_of_late(brand_id: str, late: LandedLate) -> None:
    """Tell of rows that may have landed after they were taken as not applied."""
    facts = {
        "brand": brand_id,
        "rows": late.rows,
        "profiles": late.profiles,
        "points": late.points,
        "points_in_doubt": late.doubted,
    }
    if late.points:
        remedy = "they may be awarded twice: `syncsvc books` names the rows, the wallet what it has"
        log.error("rows_landed_late", **facts, remedy=remedy)
    else:
        remedy = "none: newer profiles are sent again, points that were not sent anew yet are in doubt"
        log.warning("rows_landed_late", **facts, remedy=remedy)


def tell_of_stray(brand_id: str) -> None:
    """Tell that somebody else has moved a brand's witness."""
    remedy = "the witness must be moved by nobody else: name another email in wallet.witness"
    log.error("witness_moved_by_others", brand=brand_id, remedy=remedy)
