"""Execute DAG files as Airflow's parser does, and fail at any warning or request."""

import runpy
import sys
import warnings
from contextlib import ExitStack
from unittest.mock import patch

import airflow.settings  # noqa: F401 - what is imported here may warn
from airflow import DAG, __version__  # noqa: F401

if __version__.startswith("2."):
    from airflow.datasets import Dataset as Asset
    from airflow.hooks.base import BaseHook
    from airflow.models import Variable
else:
    from airflow.sdk import Asset, BaseHook, Variable

Asset("first://of.all")  # for which Airflow 2.10 loads its providers, and they warn

REQUESTS = (
    patch("socket.getaddrinfo"),
    patch("socket.create_connection"),
    patch("sqlite3.connect"),
    patch("airflow.settings.Session"),
    patch.object(Variable, "get"),
    patch.object(BaseHook, "get_connection"),
)

with ExitStack() as parsing:
    for request in REQUESTS:
        parsing.enter_context(request).side_effect = AssertionError("a request while parsing")
    parsing.enter_context(warnings.catch_warnings())
    warnings.simplefilter("error")
    for path in sys.argv[1:]:
        runpy.run_path(path)
