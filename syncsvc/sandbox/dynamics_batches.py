"""Batches of the Dynamics simulator: many operations in one multipart request, answered in order.

Source: Execute batch operations using the Web API (2023-01). Change sets are not part of this simulator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus

import orjson

from syncsvc.sandbox.dynamics_calls import Call, Reply
from syncsvc.sandbox.dynamics_refusals import Refusal, bad_payload, bad_query

MOST = 1000  # operations of a batch

_BOUNDARY = re.compile(r'multipart/mixed;\s*boundary="?([\w\'()+,./:=?-]{1,70})"?', re.IGNORECASE)
_LINE = re.compile(r"(GET|POST|PATCH|PUT|DELETE) (\S+) HTTP/1\.1")


def operations(batch: Call, *, length_needed: bool) -> list[Call]:
    """Return the operations of a batch; raises the 400 for one that is not put together as it must be."""
    boundary = _BOUNDARY.fullmatch(batch.headers.get("content-type", "").strip())
    if boundary is None:
        raise bad_query("The content type of a batch must be multipart/mixed with a boundary.")
    if re.search(rb"(?<!\r)\n", batch.body):
        raise bad_query("The lines of a batch must end in CRLF.")
    parts = (b"\r\n" + batch.body).split(f"\r\n--{boundary[1]}".encode())
    if len(parts) < 3 or parts[0].strip() or not parts[-1].startswith(b"--"):
        raise bad_query("The batch has no parts, or does not end.")
    found = [_operation(part, batch.origin, length_needed=length_needed) for part in parts[1:-1]]
    if len(found) > MOST:
        raise bad_query(f"The batch has more than the {MOST} operations that are allowed.")
    return found


def _operation(part: bytes, origin: str, *, length_needed: bool) -> Call:
    outer, _, inner = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    about = _headers(outer.decode("latin-1").split("\r\n"))
    if about.get("content-type", "").lower().startswith("multipart/"):
        raise bad_query("Change sets are not part of this simulator.")
    if about.get("content-type", "").lower() != "application/http":
        raise bad_query("The content type of a batch's part must be application/http.")
    if about.get("content-transfer-encoding", "").lower() != "binary":
        raise bad_query("The transfer encoding of a batch's part must be binary.")
    head, _, body = inner.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise bad_query("A part of the batch is no request.")
    if line[2].endswith("/$batch"):
        raise bad_query("A batch cannot hold other batches.")
    headers = _headers(rest)
    told = headers.get("content-length")
    if (told is None and length_needed and body) or told not in {None, str(len(body))}:
        raise bad_payload("The stream is not readable.")
    return Call(line[1], line[2], headers, body, origin)


def _headers(lines: Sequence[str]) -> dict[str, str]:
    named = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in named}


def carried_out(
    batch: Call, found: Sequence[Call], carry_out: Callable[[Call], Reply], *, unique: str
) -> tuple[int, str, bytes]:
    """Return the status, content type and body of a batch's answer; `found` are its operations.

    The first failure ends it, unless it asks to continue on errors. `unique` tells the answer's boundary from
    all others.
    """
    going_on = "odata.continue-on-error" in batch.preferences
    replies: list[Reply] = []
    status = 200
    for one in found:
        try:
            replies.append(carry_out(one))
        except Refusal as refusal:
            replies.append(Reply(refusal.status, refusal.body, refusal.headers))
            if not going_on:
                status = refusal.status
                break
    boundary = f"batchresponse_{unique}"
    written = b"".join(f"--{boundary}\r\n".encode() + _written(reply) for reply in replies)
    return status, f"multipart/mixed; boundary={boundary}", written + f"--{boundary}--\r\n".encode()


def _written(reply: Reply) -> bytes:
    head = [
        "Content-Type: application/http",
        "Content-Transfer-Encoding: binary",
        "",
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
    ]
    headers = {"OData-Version": "4.0", **reply.headers}
    if reply.body is not None:
        headers["Content-Type"] = "application/json; odata.metadata=minimal"
    lines = [*head, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    body = b"" if reply.body is None else orjson.dumps(reply.body)
    return "\r\n".join(lines).encode() + body + b"\r\n"
