"""From the files of a task to one reproducible tarball with a manifest."""
