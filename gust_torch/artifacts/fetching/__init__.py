"""From the registry to files below a root: download, check, unpack, and only what is missing."""
