"""Sessions of `requests`, for libraries that need one: their calls have the manners of our client."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import requests
import requests.adapters

from syncsvc.errors import LostAnswerError, NotSentError

if TYPE_CHECKING:
    from syncsvc.remote.transport import HttpClient

_OURS = {"accept-encoding", "connection"}  # what our client can decode, and how it keeps connections


class Adapter(requests.adapters.BaseAdapter):
    """Lets a `requests` session call through our client, so that its calls have the same manners."""

    def __init__(self, client: HttpClient) -> None:
        """Call through this client, and close it at the end."""
        super().__init__()
        self._client = client

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Return the answer to a request, whatever its status."""
        content = request.body.encode() if isinstance(request.body, str) else request.body
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OURS}
        method, url = request.method or "GET", request.url or ""
        answer = self._client.relay(method, url, headers=headers, content=content)
        response = requests.Response()
        response.status_code = answer.status
        response.headers.update(answer.headers)
        response.encoding = requests.utils.get_encoding_from_headers(response.headers)
        response.raw = io.BytesIO(answer.body)
        response.url = url
        response.request = request
        return response

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()


class Session(requests.Session):
    """A session that never follows a redirect: a POST would become a GET, and a token could leak."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: there is nothing to follow."""
        del resp


@contextmanager
def session_errors(describe: str) -> Iterator[None]:
    """Turn the errors of a `requests` session into NotSentError and LostAnswerError."""
    try:
        yield
    except requests.exceptions.RequestException as error:
        # Trouble of the network is raised as ours already. The library's own texts repeat URLs and headers.
        kind = NotSentError if isinstance(error, _UNSENDABLE) else LostAnswerError
        raise kind(f"{describe}: no answer ({type(error).__name__})") from None


_UNSENDABLE = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
)
