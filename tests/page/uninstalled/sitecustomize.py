"""For a Python in which no plugin of Airflow is installed, so to speak: entry points are hidden."""

from contextlib import suppress
from importlib import import_module


def hide_from(metadata):
    """Let distributions have all entry points but those of plugins."""
    found = metadata.Distribution.entry_points.fget

    def entry_points(distribution):
        kept = [one for one in found(distribution) if one.group != "airflow.plugins"]
        return metadata.EntryPoints(kept)

    metadata.Distribution.entry_points = property(entry_points)


for name in ("importlib.metadata", "importlib_metadata"):  # Airflow uses either, by its version
    with suppress(ModuleNotFoundError):
        hide_from(import_module(name))
