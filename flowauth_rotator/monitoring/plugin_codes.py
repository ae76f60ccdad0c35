"""The codes of severities in Nagios, Icinga, Checkmk and the metrics."""

from __future__ import annotations

from flowauth_rotator.core.report import Severity

PLUGIN_CODES = {
    Severity.OK: 0,
    Severity.WARNING: 1,
    Severity.CRITICAL: 2,
    Severity.UNKNOWN: 3,
}
