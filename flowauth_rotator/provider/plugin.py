"""What the package adds to Airflow itself: the page "FlowAPI tokens" and its API."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from flowauth_rotator.provider.compat import PAGE, AirflowPlugin, for_this_airflow

TITLE = "FlowAPI tokens"
MOUNT = "flowauth-rotator"


class _FlaskPage(AirflowPlugin):
    """As Airflow 2 takes it; each is loaded in the web server alone."""

    @cached_property
    def flask_blueprints(self) -> list[Any]:  # type: ignore[override]
        """The page and its API."""
        from flowauth_rotator.provider.web.flask_blueprint import blueprint

        return [blueprint]

    @cached_property
    def appbuilder_views(self) -> list[Any]:  # type: ignore[override]
        """The page in the menu."""
        from flowauth_rotator.provider.web.flask_blueprint import TokensPage

        return [{"name": TITLE, "category": "Admin", "view": TokensPage()}]


class _FastAPIPage(AirflowPlugin):
    """As Airflow 3 takes it; each is loaded in the API server alone."""

    external_views = [  # noqa: RUF012 - Airflow's
        {
            "name": TITLE,
            "href": f"{MOUNT}/",
            "url_route": PAGE,
            "destination": "nav",
            "nav_top_level": True,
            "icon": f"{MOUNT}/static/icon.svg",
        }
    ]

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """The page and its API."""
        from flowauth_rotator.provider.web.fastapi_app import app

        return [{"app": app, "url_prefix": f"/{MOUNT}", "name": TITLE}]


class FlowAuthRotatorPlugin(for_this_airflow(two=_FlaskPage, three=_FastAPIPage)):  # type: ignore[misc]
    """The plugin; Airflow finds it by the package's entry point `airflow.plugins`."""

    name = "flowauth_rotator"


def _is_installed() -> bool:
    return any(
        entry.value.startswith(f"{__name__}:") for entry in entry_points(group="airflow.plugins")
    )


# For a file in the plugins folder: Airflow takes a plugin that comes twice for an error.
FolderPlugin = None if _is_installed() else FlowAuthRotatorPlugin
