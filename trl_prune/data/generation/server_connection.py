"""The connection to a server with OpenAI's API, and what its failures are called."""

import os
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from trl_prune.errors import InputError, first_line


if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

# Characters of a server's message that are shown.
MESSAGE_LENGTH = 300


class ServerFailure(Exception):
    """What the server did, as the predicate of a sentence."""


def openai_package() -> ModuleType:
    """Return the `openai` package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise InputError(
            "the server engine needs the package openai: install it with `pip install 'trl-prune[server]'`"
        ) from error
    return openai


@dataclass(frozen=True)
class ServerConnection:
    """How to reach a server.

    Attributes:
        url: its address, with or without `/v1`.
        timeout_s: seconds until a request counts as failed.
        retries: how often a failed request is sent again.
        api_key_env: the environment variable that holds the API key.
    """

    url: str
    timeout_s: float
    retries: int
    api_key_env: str

    def client(self) -> "AsyncOpenAI":
        """Return a client that repeats requests which time out, cannot connect, or get 408, 409, 429 or 5xx."""
        return openai_package().AsyncOpenAI(**self._options(), max_retries=self.retries)

    def models(self) -> list[str] | None:
        """Return the names of the models that the server lists, or None if it has no such list.

        Raises:
            InputError: no server answers.
        """
        openai = openai_package()
        try:
            with openai.OpenAI(**self._options(), max_retries=0) as client:
                return [model.id for model in client.models.list().data or ()]
        except openai.AuthenticationError as error:
            raise InputError(f"the server {self.url} {self.failure(error)}") from error
        except openai.APIConnectionError as error:
            reason = first_line(error.__cause__ or error)
            raise InputError(f"no server answers at {self.url} ({reason}); start it, or correct the url") from error
        except (openai.APIError, ValueError, AttributeError, TypeError):
            return None

    def failure(self, error: "APIError") -> ServerFailure:
        """Return what an error that the client did not overcome says of the server; it never holds the API key."""
        openai = openai_package()
        if isinstance(error, openai.APIStatusError):
            key, message = os.environ.get(self.api_key_env), " ".join(error.response.text.split())[:MESSAGE_LENGTH]
            shown = message.replace(key, f"${self.api_key_env}") if key else message
            return ServerFailure(f"answered with status {error.status_code}: {shown or error.response.reason_phrase}")
        if isinstance(error, openai.APITimeoutError):
            return ServerFailure(f"did not answer within {self.timeout_s:g} s, {self.retries + 1} times in a row")
        return ServerFailure(f"cannot be reached any more ({first_line(error.__cause__ or error)})")

    def _options(self) -> dict:
        url = self.url.rstrip("/")
        return {
            "base_url": url if urlsplit(url).path else f"{url}/v1",
            # Servers without keys ignore it; the client wants one.
            "api_key": os.environ.get(self.api_key_env) or "none",
            "timeout": self.timeout_s,
        }
