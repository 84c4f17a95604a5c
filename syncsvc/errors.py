"""The error tree: a class says what the engine does next, the message says what a person does next.

    SyncError
    ├── ConfigurationError      nothing starts; exit 78
    ├── TransientError          this part of the cycle ends, the next cycle resumes; exit 75
    │   ├── NotSentError        the request never left: nothing can have happened
    │   └── LostAnswerError     the request left, its answer did not come back: anything can have happened
    ├── OperatorError           this connector or delivery waits until a person acts; others go on; exit 1
    │   ├── CredentialsError    the remote side refuses who we are or what we may do
    │   └── SchemaError         a field that is mapped or written does not exist, or not in the needed form
    ├── CursorError             the cursor is of no use any more: read everything again
    ├── StateError              the state database cannot be used; exit 75
    │   ├── HeldError           another process runs the cycles of this organization; exit 75
    │   └── StateUnreadyError   it passes, and nothing was changed: a service waits for it; exit 75
    └── StoppedError            the process was asked to stop; leave cleanly, nothing is wrong
        └── LeaseLostError      another process may run the cycles of this organization by now; so leave

No message holds personal data or a secret: record ids, field names, counts and status codes only.
"""

from __future__ import annotations

from collections.abc import Sequence


class SyncError(Exception):
    """An error that the engine knows how to continue from."""


class ConfigurationError(SyncError):
    """The configuration has problems, all of which are in `problems`, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Hold every problem; each line names file, key and remedy."""
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class TransientError(SyncError):
    """Something that passes: the next cycle resumes where this one ended.

    `retry_after` is the number of seconds the remote side asked for, or None where it said nothing.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Hold the message and the wait the remote side asked for."""
        super().__init__(message)
        self.retry_after = retry_after


class NotSentError(TransientError):
    """The request never left this machine (DNS, connect, TLS): nothing can have happened."""


class LostAnswerError(TransientError):
    """The request left and no whole answer came back: anything can have happened."""


class OperatorError(SyncError):
    """Only a person can mend this: the part it concerns waits, the others go on."""


class CredentialsError(OperatorError):
    """The remote side refuses who we are or what we may do; `remedy` is what to do, where that is known."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Hold the message and the remedy."""
        super().__init__(message)
        self.remedy = remedy


class SchemaError(OperatorError):
    """A mapped or written field does not exist in the CRM, or not in the form that is needed."""

    def __init__(self, message: str, *, fields: Sequence[str] = ()) -> None:
        """Hold the message and the CRM's names of the fields concerned."""
        super().__init__(message)
        self.fields = tuple(fields)


class CursorError(SyncError):
    """The remote side no longer understands the cursor: a sweep is needed."""


class StateError(SyncError):
    """The state database cannot be used as it is; the message says why and what to do."""


class HeldError(StateError):
    """Another process runs the cycles of this organization; the message says which."""


class StateUnreadyError(StateError):
    """The state cannot be used for now, as its server is away or busy: whoever can wait tries again."""


class StoppedError(SyncError):
    """The process was asked to stop."""


class LeaseLostError(StoppedError):
    """The cycles of this organization are another process's by now: nothing of this one may be stored."""
