"""From run folders to tables, charts and one page: `load` gives the pandas tables of a run or of a
comparison; `reports.data.tables` documents their columns and units."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.data.tables import Tables, load

__all__ = ["Tables", "load"]


def __getattr__(name: str) -> Any:
    # Only when it is asked for: who wants to parse an objective needs neither pandas nor charts.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reports.data import tables

    return getattr(tables, name)
