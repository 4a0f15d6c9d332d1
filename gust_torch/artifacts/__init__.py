"""Datasets on their way between machines: registry, package, upload, fetch. Imports no torch."""

__all__: list[str] = []
