"""What Airflow is told of the package, by the entry point `apache_airflow_provider`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

DISTRIBUTION = "flowauth-rotator"

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {  # what the extra may hold, as the form shows it
    "public_key": {
        "label": "Public key",
        "description": "PEM, or the address of a JWK Set; verifies what the issuer answers.",
        "schema": {"type": ["string", "null"], "format": "multiline"},
    },
    "totp_secret": {
        "label": "TOTP secret",
        "description": "For an account with two-factor authentication, and no other.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "timeout": {
        "label": "Timeout",
        "description": "Seconds for one request; 30 if left empty.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 3600},
    },
    "verify": {
        "label": "Verify certificates",
        "description": "true (if left empty), false, or the path of the certificates to trust.",
        "schema": {"type": ["string", "null"]},
    },
}

FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema"],  # Airflow 2.11 cannot test a connection if `extra` is hidden
    "relabeling": {"host": "Address", "login": "Owner of the tokens"},
    "placeholders": {
        "host": "https://flowauth.example.org",
        "port": "443",
        "login": "empty: each token is its own credential",
    },
}

CONFIG: dict[str, Any] = {
    "flowauth_rotator": {
        "description": "Settings of flowauth-rotator.",
        "options": {
            "scrape_token": {
                "description": (
                    "What a scraper of /flowauth-rotator/metrics sends as `Authorization: Bearer`."
                ),
                "version_added": "0.1.0",
                "type": "string",
                "sensitive": True,
                "example": None,
                "default": "",
            },
            "checkmk_spool_dir": {
                "description": "Folder that gets a Checkmk spool file after each check.",
                "version_added": "0.1.0",
                "type": "string",
                "example": "/var/lib/check_mk_agent/spool",
                "default": "",
            },
            "textfile_dir": {
                "description": "Folder of node_exporter that gets a textfile after each check.",
                "version_added": "0.1.0",
                "type": "string",
                "example": "/var/lib/prometheus/node-exporter",
                "default": "",
            },
        },
    }
}


def get_provider_info() -> dict[str, Any]:
    """The connection type with its form, the hook, the operator and its link, the sensor."""
    about = {"integration-name": "FlowAuth"}
    room = "flowauth_rotator.provider"
    return {
        "package-name": DISTRIBUTION,
        "name": "FlowAuth",
        "description": "Keeps the FlowAPI tokens in Airflow's Variables alive.",
        "versions": [version(DISTRIBUTION)],
        "integrations": [
            {
                **about,
                "external-doc-url": "https://github.com/Flowminder/FlowKit",
                "tags": ["service"],
            }
        ],
        "hooks": [{**about, "python-modules": [f"{room}.hook"]}],
        "operators": [{**about, "python-modules": [f"{room}.operator"]}],
        "sensors": [{**about, "python-modules": [f"{room}.sensor"]}],
        "extra-links": [f"{room}.operator.TokenLink"],
        "config": CONFIG,
        "connection-types": [
            {
                "connection-type": "flowauth",
                "hook-class-name": f"{room}.hook.FlowAuthHook",
                "hook-name": "FlowAuth",
                "ui-field-behaviour": FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
    }
