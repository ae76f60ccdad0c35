"""Register the plugin where flowauth-rotator is on the path of Airflow, but not installed."""

from flowauth_rotator.provider import FolderPlugin as FolderPlugin
