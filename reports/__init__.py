"""From run folders to tables, charts and one page: `load` gives the pandas tables of a run or of a
comparison; `reports.tables` documents their columns and units."""

from reports.tables import Tables, load

__all__ = ["Tables", "load"]
