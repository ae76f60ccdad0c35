"""A secret in AWS Secrets Manager as a store of a token."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from flowauth_rotator.core.errors import (
    MalformedToken,
    Misconfigured,
    MissingToken,
    RotatorError,
    StoreUnavailable,
)
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider.compat import build_secrets_manager_client
from flowauth_rotator.provider.secret_store import SecretStore

NOT_FOUND = "ResourceNotFoundException"
REFUSALS = {
    "AccessDenied",
    "AccessDeniedException",
    "DecryptionFailure",
    "EncryptionFailure",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "NoCredentialsError",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
INVALID_REQUESTS = {
    "InvalidParameterException",
    "InvalidRequestException",
    "ValidationException",
}


class AwsStore(SecretStore):
    """A secret whose text is the token.

    Secrets Manager cannot write on condition that a secret has not changed.
    """

    noun, extra = "AWS secret", "aws"

    def read(self) -> Token:
        """Read the current version of the secret."""
        text, _ = self._read()
        if not text.strip():
            raise MissingToken(f"{self.place} is empty.")
        return Token.strip(text)

    def check_permission(self) -> None:
        """Write the current version again, which changes nothing."""
        text, version = self._read()
        self._put(text, ClientRequestToken=version)

    def write(self, token: Token, description: str) -> None:  # noqa: ARG002 - a secret has its own
        """Write a new version of the secret."""
        self._put(token.reveal())

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401 - of boto3
        return build_secrets_manager_client(self.conn_id)

    def _read(self) -> tuple[str, str]:
        response: dict[str, Any] = self._call(
            "read", lambda: self._client.get_secret_value(SecretId=self.path)
        )
        if response.get("SecretBinary"):
            raise MalformedToken(
                f"{self.place} is binary.", hint="Store the JWT as the text of the secret."
            )
        return response.get("SecretString") or "", response["VersionId"]

    def _put(self, text: str, **options: str) -> None:
        self._call(
            "write",
            lambda: self._client.put_secret_value(SecretId=self.path, SecretString=text, **options),
        )

    def _explain(self, action: str, error: Exception) -> RotatorError | None:
        """Return the error of a code; of any other error, only the code or the type is shown."""
        code = type(error).__name__
        if isinstance(error, ClientError):
            code = error.response["Error"]["Code"]
        if code == NOT_FOUND:
            return MissingToken(f"{self.place} does not exist.")
        if code in REFUSALS:
            return self._refuse_access(action)
        if code in INVALID_REQUESTS:
            return Misconfigured(
                f"AWS refuses to {action} {self.place}: {code}.",
                hint="If the secret is scheduled for deletion, restore it; otherwise correct its "
                "name, which is that of `store` and the key.",
            )
        return StoreUnavailable(f"The request to {action} {self.place} failed with {code}.")
