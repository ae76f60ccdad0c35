"""The metadata of the provider, for Airflow's entry point `apache_airflow_provider`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

DISTRIBUTION = "flowauth-rotator"

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {  # of the extra
    "public_key": {
        "label": "Public key",
        "description": "PEM text or URL of a JWK Set. Verifies the signatures of tokens.",
        "schema": {"type": ["string", "null"], "format": "multiline"},
    },
    "totp_secret": {
        "label": "TOTP secret",
        "description": "Base32 secret of the account's two-factor authentication, if it has any.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "probe_url": {
        "label": "FlowAPI address to try tokens at",
        "description": "An address of FlowAPI that needs a token, such as "
        "https://flowapi.example.org/api/0/available_dates. A successor that it refuses is not "
        "stored.",
        "schema": {"type": ["string", "null"]},
    },
    "timeout": {
        "label": "Timeout",
        "description": "Seconds for one request. Default: 30.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 3600},
    },
    "verify": {
        "label": "Verify certificates",
        "description": "true, false, or the path of the certificates to trust. Default: true.",
        "schema": {"type": ["string", "null"]},
    },
}

FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema"],  # Airflow 2.11 cannot test a connection if `extra` is hidden
    "relabeling": {"host": "Address", "login": "Owner of the tokens"},
    "placeholders": {
        "host": "https://flowauth.example.org",
        "port": "443",
        "login": "leave empty to use each token as its own credential",
    },
}

CONFIG: dict[str, Any] = {
    "flowauth_rotator": {
        "description": "Settings of flowauth-rotator.",
        "options": {
            "scrape_token": {
                "description": ("Bearer token that Prometheus sends to /flowauth-rotator/metrics."),
                "version_added": "0.1.0",
                "type": "string",
                "sensitive": True,
                "example": None,
                "default": "",
            },
            "checkmk_spool_dir": {
                "description": "Folder for a Checkmk spool file, written after each check.",
                "version_added": "0.1.0",
                "type": "string",
                "example": "/var/lib/check_mk_agent/spool",
                "default": "",
            },
            "textfile_dir": {
                "description": "Folder for a textfile of node_exporter, written after each check.",
                "version_added": "0.1.0",
                "type": "string",
                "example": "/var/lib/prometheus/node-exporter",
                "default": "",
            },
        },
    }
}


def get_provider_info() -> dict[str, Any]:
    """Return the description of the provider in Airflow's format."""
    integration = {"integration-name": "FlowAuth"}
    package = "flowauth_rotator.provider"
    return {
        "package-name": DISTRIBUTION,
        "name": "FlowAuth",
        "description": "Renews FlowAPI tokens in Airflow Variables before they expire.",
        "versions": [version(DISTRIBUTION)],
        "integrations": [
            {
                **integration,
                "external-doc-url": "https://github.com/Flowminder/FlowKit",
                "tags": ["service"],
            }
        ],
        "hooks": [{**integration, "python-modules": [f"{package}.hook"]}],
        "operators": [{**integration, "python-modules": [f"{package}.operator"]}],
        "sensors": [{**integration, "python-modules": [f"{package}.sensor"]}],
        "extra-links": [f"{package}.operator.TokenLink"],
        "config": CONFIG,
        "connection-types": [
            {
                "connection-type": "flowauth",
                "hook-class-name": f"{package}.hook.FlowAuthHook",
                "hook-name": "FlowAuth",
                "ui-field-behaviour": FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
    }
