"""The Airflow plugin: the page "FlowAPI tokens" and its API."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from flowauth_rotator.provider.compat import PAGE, AirflowPlugin, select_for_airflow

TITLE = "FlowAPI tokens"
NAV_LABEL = "FlowAPI"  # Airflow 3 cuts off a longer one
MOUNT = "flowauth-rotator"


class _FlaskPage(AirflowPlugin):
    """The page for Airflow 2, whose parts only the web server loads."""

    @cached_property
    def flask_blueprints(self) -> list[Any]:  # type: ignore[override]
        """Return the page and its API."""
        from flowauth_rotator.provider.web.flask_blueprint import blueprint

        return [blueprint]

    @cached_property
    def appbuilder_views(self) -> list[Any]:  # type: ignore[override]
        """Return the menu entry of the page."""
        from flowauth_rotator.provider.web.flask_blueprint import TokensPage

        return [{"name": TITLE, "category": "Admin", "view": TokensPage()}]


class _FastAPIPage(AirflowPlugin):
    """The page for Airflow 3, whose parts only the API server loads."""

    external_views = [  # noqa: RUF012 - Airflow's
        {
            "name": NAV_LABEL,
            "href": f"{MOUNT}/",
            "url_route": PAGE,
            "destination": "nav",
            "nav_top_level": True,
            "icon": f"{MOUNT}/static/icon.svg",
        }
    ]

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """Return the page and its API."""
        from flowauth_rotator.provider.web.fastapi_app import app

        return [{"app": app, "url_prefix": f"/{MOUNT}", "name": TITLE}]


class FlowAuthRotatorPlugin(select_for_airflow(airflow_2=_FlaskPage, airflow_3=_FastAPIPage)):  # type: ignore[misc]
    """The plugin, which Airflow finds by the package's entry point `airflow.plugins`."""

    name = "flowauth_rotator"


def _is_installed() -> bool:
    return any(
        entry.value.startswith(f"{__name__}:") for entry in entry_points(group="airflow.plugins")
    )


# For a file in the plugins folder; Airflow rejects a plugin that is registered twice.
FolderPlugin = None if _is_installed() else FlowAuthRotatorPlugin
