"""The Variable in which a rotation DAG keeps its status document."""

from __future__ import annotations

import hashlib
import logging

from flowauth_rotator.core.errors import StoreUnavailable
from flowauth_rotator.monitoring.status import InvalidStatus, StatusDocument
from flowauth_rotator.provider.compat import read_stored_variable, write_stored_variable
from flowauth_rotator.provider.managed_tokens import DAG_ID, LONGEST_KEY

logger = logging.getLogger(__name__)

KEY_PREFIX = "flowauth_rotator_status"


def build_key(dag_id: str) -> str:
    """Return the key of the Variable: without an id for the DAG of the default name.

    An id that would make the key too long for Airflow is cut, with a digest in its place.
    """
    if dag_id == DAG_ID:
        return KEY_PREFIX
    key = f"{KEY_PREFIX}_{dag_id}"
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.sha256(dag_id.encode()).hexdigest()[:16]
    return f"{key[: LONGEST_KEY - 17]}_{digest}"


class StatusVariable:
    """The Variable with the status document of a DAG, inside a task.

    A failure is logged: the renewal of tokens does not depend on it.
    """

    def __init__(self, dag_id: str) -> None:
        self._dag_id, self._key = dag_id, build_key(dag_id)
        self._is_readable = False

    def read(self) -> StatusDocument | None:
        """Return the document; None if there is none of this version, or it cannot be read."""
        self._is_readable = False
        try:
            text = read_stored_variable(self._key)
        except StoreUnavailable as error:
            logger.error("The status of this check is not recorded. %s", error)  # noqa: TRY400
            return None
        self._is_readable = True
        try:
            return None if text is None else StatusDocument.load(text)
        except InvalidStatus as error:
            logger.warning("Variable %s is replaced. %s", self._key, error)
            return None

    def write(self, document: StatusDocument) -> None:
        """Replace the document, unless the one before could not be read."""
        if not self._is_readable:
            return
        description = (
            f"Written by the DAG {self._dag_id} at each check: the status of its tokens. It "
            "contains no token. If it is deleted, counters and history start again."
        )
        try:
            write_stored_variable(self._key, document.dump(), description)
        except StoreUnavailable as error:
            logger.error("The status of this check is not recorded. %s", error)  # noqa: TRY400
