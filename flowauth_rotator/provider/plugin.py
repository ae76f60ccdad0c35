"""What the package adds to Airflow itself."""

from __future__ import annotations

from flowauth_rotator.provider.compat import AirflowPlugin


class FlowAuthRotatorPlugin(AirflowPlugin):
    """Registers the package with Airflow under the name `flowauth_rotator`."""

    name = "flowauth_rotator"
