"""Makes users in an Airflow 2: a JSON object of roles and passwords by name comes on stdin."""

import json
import sys

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

# What somebody sees who starts nothing and changes nothing.
READER = [
    ("can_read", "Website"),
    ("can_read", "Variables"),
    ("can_read", "DAGs"),
    ("can_read", "DAG Runs"),
    ("can_read", "Task Instances"),
    ("menu_access", "Admin"),
    ("menu_access", "FlowAPI tokens"),
]

with get_application_builder() as builder:
    security = builder.sm
    security.sync_roles()
    reader = security.add_role("Reader")
    for action, resource in READER:
        security.add_permission_to_role(reader, security.create_permission(action, resource))
    for name, (role, password) in json.load(sys.stdin).items():
        made = security.add_user(
            name, name, name, f"{name}@example.org", security.find_role(role), password
        )
        assert made, name
