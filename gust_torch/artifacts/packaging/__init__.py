"""From the files of a task to one reproducible tarball with a manifest."""

from typing import TYPE_CHECKING

from gust_torch._lazy import lazy_exports

if TYPE_CHECKING:
    from gust_torch.artifacts.packaging.pack import package
    from gust_torch.artifacts.packaging.result import Package

__all__ = ["Package", "package"]

# Packing reads HDF5 files; `--help` need not wait for that.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {"Package": "gust_torch.artifacts.packaging.result", "package": "gust_torch.artifacts.packaging.pack"},
)
