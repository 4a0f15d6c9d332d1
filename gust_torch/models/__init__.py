"""Plain torch modules: no Lightning, no files."""
