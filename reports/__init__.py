"""From run folders to tables, charts and a page: `load` returns the pandas tables of a run or a
comparison; `reports.data.tables` documents their columns and units."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.data.tables import Tables, load

__all__ = ["Tables", "load"]


def __getattr__(name: str) -> Any:
    # Imported on demand: parsing an objective needs neither pandas nor charts.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reports.data import tables

    return getattr(tables, name)
