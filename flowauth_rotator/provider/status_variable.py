"""The Variable in which a rotation DAG keeps its status document."""

from __future__ import annotations

import hashlib
import logging

from flowauth_rotator.core.errors import MalformedToken
from flowauth_rotator.monitoring.status import InvalidStatus, StatusDocument
from flowauth_rotator.provider.compat import read_variable, write_variable
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


def read_status(dag_id: str) -> StatusDocument | None:
    """Read the document of a DAG; None if there is none of this version.

    Raises:
        StoreUnavailable: Airflow did not respond.
    """
    key = build_key(dag_id)
    try:
        text = read_variable(key)
        return None if text is None else StatusDocument.load(text)
    except (InvalidStatus, MalformedToken) as error:
        logger.warning("Variable %s is replaced: %s", key, error)
        return None


def write_status(dag_id: str, document: StatusDocument) -> None:
    """Replace the document of a DAG.

    Raises:
        StoreUnavailable: the write failed or may have failed.
    """
    description = (
        f"Written by the DAG {dag_id} at each check: what flowauth-rotator knows of its tokens. "
        "It contains no token. If it is deleted, counters and history begin anew."
    )
    write_variable(build_key(dag_id), document.dump(), description)
