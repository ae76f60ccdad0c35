"""For a Python in which the plugin is not installed, so to speak: its entry point is hidden."""

import importlib.metadata

found = importlib.metadata.Distribution.entry_points.fget


def entry_points(distribution):
    """All but the plugin."""
    kept = [one for one in found(distribution) if one.group != "airflow.plugins"]
    return importlib.metadata.EntryPoints(kept)


importlib.metadata.Distribution.entry_points = property(entry_points)
