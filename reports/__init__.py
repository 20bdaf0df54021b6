"""From run folders to tables, charts and one page: `load` gives the pandas tables of a run."""

from reports.metrics import RunTables, load, summarise

__all__ = ["RunTables", "load", "summarise"]
