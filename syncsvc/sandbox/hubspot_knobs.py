"""The knobs of the HubSpot simulator: what HubSpot does differently from account to account or day to day.

Defaults are the strict and documented behaviour. What is marked *unverified* no source settles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from syncsvc.sandbox.hubspot_refusals import generic_problem


@dataclass(slots=True)
class HubSpotKnobs:
    """How the simulated account behaves; may be changed while it serves."""

    # The search index: a change is found `index_lag` seconds after it happened, and up to `index_jitter`
    # seconds later still, drawn per change, so that changes near now become visible out of order.
    index_lag: float = 0.0
    index_jitter: float = 0.0
    phantom_hits: int = (
        0  # hits of records gone since, before the live ones: short and empty pages with a next
    )
    short_search_pages: bool = False  # a page holds half of what was asked for, though there is more
    shuffled_search_pages: bool = False  # the rows of a page come in no order

    list_page_default: int = 10  # contacts guide 2026-03
    list_page_max: int = 100
    search_page_default: int = 10  # search guide 2026-03
    search_page_max: int = 200
    search_ceiling: int = 10_000
    search_ceiling_body: Mapping[str, Any] = field(default_factory=generic_problem)  # unverified
    search_groups_max: int = 5
    search_group_filters_max: int = 6
    search_filters_max: int = 18
    search_text_max: int = 3_000  # characters of the whole body, and of `query`
    batch_max: int = 100
    history_page_max: int = 50  # records a request with `propertiesWithHistory`

    same_value_bumps: bool = False  # unverified: a write that changes nothing moves lastmodifieddate
    restore_moves: bool = False  # unverified: what comes out of the recycle bin counts as modified
    archive_lag: float = 0.0  # unverified: seconds until the list of archived contacts shows one
    merged_are_archived: bool = False  # unverified: the list shows contacts that were merged away, too
    null_clears: bool = False  # unverified: null in a write empties the property; else it is refused
    refuse_unknown_keys: bool = True  # unverified: JSON keys that no schema knows give a 400
    shuffled_batch_results: bool = True
    # From 2026-09 on, every write needs these properties to be filled on the record it leaves behind
    # (changelog "crm-api-write-validation-enforcement", 2026-09; that it strikes any update is unverified).
    required_on_write: tuple[str, ...] = ()

    # Limits of a Professional account (usage guidelines, 2026-09); under a clock that stands still they
    # never refill.
    limits: bool = True
    burst: int = 190  # requests per token in any 10 s, searches not counted
    daily: int = 625_000  # requests per account until midnight in `time_zone`
    searches_per_second: int = 5  # per account
    foreign_daily: int = 0  # of these, what other apps of the account use up
    foreign_searches_per_second: int = 0
    time_zone: str = "UTC"
    retry_after: int | None = None  # seconds, on 429 answers of the burst and daily limits; often absent
