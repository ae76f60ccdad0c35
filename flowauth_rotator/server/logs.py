"""Log lines for machines: one JSON object each."""

from __future__ import annotations

import json
import logging
import time


class JsonLines(logging.Formatter):
    """A record as one line of JSON: when, what, and the facts that it brings in `facts`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        made = time.gmtime(record.created)
        line = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', made)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
