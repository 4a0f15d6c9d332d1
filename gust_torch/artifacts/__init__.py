"""Datasets on their way between machines: registry, packages, stores, uploads, fetches. Imports no torch."""

__all__: list[str] = []
