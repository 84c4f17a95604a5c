"""Calls with a key in a header: read with the first call, and anew where it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from syncsvc.errors import CredentialsError
from syncsvc.remote.answer import Answer
from syncsvc.remote.transport import HttpClient, Network
from syncsvc.settings import Secret


class KeyedClient:
    """Calls to one service, each with the key; keys are replaced while a service runs."""

    def __init__(
        self,
        client: HttpClient,
        key: Secret,
        network: Network,
        *,
        called: str,
        header: str = "Authorization",
        form: str = "Bearer {}",
    ) -> None:
        """Make no request yet; `called` is what messages call the key, `form` how the header has it."""
        self.ahead = timedelta()
        """The service's clock minus ours when it last answered: too little by up to a second, never more."""
        self._client = client
        self._secret = key
        self._network = network
        self._called = called
        self._header = header
        self._form = form
        self._key: str | None = None

    def send(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None
    ) -> Answer:
        """Return the whole answer, whatever its status: a 401 where the key was refused after a second look.

        Raises CredentialsError where the key cannot be read, and what `HttpClient.send` raises.
        """
        for again in (False, True):
            if again or self._key is None:
                self._key = self._read()
            headers = {self._header: self._form.format(self._key)}
            answer = self._client.send(method, path, params=params, json=json, headers=headers)
            if answer.status != 401:
                break
        if answer.date is not None:
            self.ahead = answer.date - self._network.now()
        return answer

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def _read(self) -> str:
        if problem := self._secret.problem():
            raise CredentialsError(f"the {self._called} cannot be read: {problem}")
        key = self._secret.read()
        if not key.isascii() or not key.isprintable():
            raise CredentialsError(f"the {self._called} holds characters that no key has")
        return key
