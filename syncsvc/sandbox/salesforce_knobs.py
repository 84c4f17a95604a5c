"""The knobs of the Salesforce simulator: what an org is like, and what goes wrong inside it.

Defaults are the documented behaviour; where no document settles a thing, its knob says *undocumented*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class SalesforceKnobs:
    """What the org is like, and what goes wrong inside it; may be changed while it serves.

    Fields are named as "Contact.Email", records by their 18-character id.
    """

    commit_delay: float = 0.0  # seconds from the DML of a verb to its commit
    page_size: int = 2000  # records a page has at most, whatever a request asks for
    live_pages: bool = True  # later pages show rows as they are by then, not as they were; undocumented
    locator_seconds: float = 172_800.0
    locator_limit: int = 10  # query results kept, the oldest thrown away; undocumented today
    token_calls: int | None = None  # requests that a token is good for
    token_seconds: float = 7200.0  # of idleness, after which a token is no longer good
    login_limit: int = 3600  # an hour
    grant_error: tuple[str, str] | None = None  # `error` and `error_description` of every token request
    password_grant: bool = False  # blocked in orgs made since Summer '23
    soap_login: bool = True  # off in orgs made since Summer '25
    approved: bool = True  # an administrator has approved the client for the user
    daily_requests: int = 100_000  # in any 24 hours
    foreign_requests: int = 0  # of these, what other clients have made
    usage_on_refusals: bool = True  # Sforce-Limit-Info is on refusals too; undocumented
    running_elsewhere: int = 0  # long requests of other clients, now
    concurrent_requests: int = 25
    app_usage: str = ""  # follows api-usage in Sforce-Limit-Info, such as "per-app-api-usage=1/5(appName=x)"
    deletions_limit: int = 600_000  # ids of one answer
    deletions_name_restored: bool = False  # rows that came back since are listed too; undocumented
    refuses_trimmed: bool = False  # a span that begins before the log of deletions; undocumented
    bulk_api: bool = True  # the org and its user have the Bulk API
    job_seconds: float = 5.0  # until a query job is complete
    job_page: int = 100_000  # rows that a page of a job's results has at most, whatever a request asks for
    job_results_seconds: float = 604_800.0
    job_failure: str = ""  # where not empty, jobs fail with this message
    daily_query_jobs: int = 10_000  # in any 24 hours
    foreign_query_jobs: int = 0  # of these, what other clients have made
    may_view_setup: bool = True  # /limits needs it
    hidden: set[str] = field(default_factory=set)  # fields without read access
    read_only: set[str] = field(default_factory=set)  # fields without edit access
    locked: set[str] = field(default_factory=set)
    lock_chance: float = 0.0  # that a record is locked when written
    invalid: dict[str, tuple[str, ...]] = field(default_factory=dict)  # id: messages of failing rules
    poisoned: set[str] = field(default_factory=set)  # a trigger blows up on these, and fails their chunk
    trigger_edits: dict[str, dict[str, Any]] = field(default_factory=dict)  # object: fields set on API writes
    duplicate_rule: bool = False  # alerts where another record of the object has the same email
    assign_to: str = ""  # owner whom the active assignment rule names
    unknown_field_fails_call: bool = True  # else only its record of a collection; undocumented
    failed_items_name_id: bool = False  # undocumented
    lower_emails: bool = False  # undocumented
