"""What needs no chart, since it is said in a sentence: nothing happened there."""

from __future__ import annotations

from collections.abc import Iterator

from reports.data.metrics import RunTables


def all_served(run: RunTables) -> bool:
    """Whether all that was wanted was served."""
    served = run.operations["served"]
    return bool(len(served) and served.all() and not len(run.dropped))


def steady_leader(run: RunTables) -> tuple[str, str] | None:
    """The one node that led throughout, and its term; None if there was none, or another."""
    known = run.nodes[run.nodes["role"].notna()]
    during = known[known["t_s"] >= 0]
    if (during["kind"] == "event").any() or not len(during):
        return None
    roles = during.groupby("node")["role"].nunique()
    led = during.loc[during["role"] == "leader", ["node", "term"]].drop_duplicates()
    if (roles > 1).any() or len(led) != 1:
        return None
    node, term = led.iloc[0]
    return str(node), f"{term:g}" if isinstance(term, int | float) else str(term)


def sentences(run: RunTables) -> Iterator[str]:
    """What happened throughout the run."""
    if all_served(run):
        yield (
            f"All that was wanted was served within {run.summary.service_s:g} s, at every moment."
        )
    steady = steady_leader(run)
    if steady is not None:
        yield f"{steady[0]} led throughout, in term {steady[1]}; there was no election."
