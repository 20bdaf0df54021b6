# %% [markdown]
# # From a comparison to your own questions
#
# Open this file in an editor that knows `# %%` cells (or convert it: `jupytext --to ipynb`), or run
# it: `python examples/notebook.py results/compare/...`. `reports.data.tables` documents every
# column.

# %%
from __future__ import annotations

import sys

import pandas as pd

import reports

folder = sys.argv[1] if len(sys.argv) > 1 else "results"
tables = reports.load(folder)
for gap in tables.missing:
    print("missing:", gap)
pd.set_option("display.width", 120, "display.max_columns", 12)

# %% What was measured, one row per run
shown = ["experiment", "protocol", "verdict", "measured_model", "throughput_before"]
print("Runs\n", tables.runs[shown].to_string(index=False), sep="")

# %% Latency of ok operations by the node that was asked, in ms
ok = tables.operations.query("outcome == 'ok'")
by_node = ok.groupby(["experiment", "protocol", "node"], observed=True)["latency_ms"]
print("\nLatency by node, ms\n", by_node.describe(percentiles=[0.5, 0.99]).round(1), sep="")

# %% The share of operations that ended ok, second by second
seconds = tables.operations.assign(
    second=tables.operations["intended_s"].astype(int),
    ok=tables.operations["outcome"] == "ok",
)
share = seconds.pivot_table(
    index="second", columns=["experiment", "protocol"], values="ok", observed=True
)
print("\nAvailability second by second\n", share.round(2), sep="")

# %% What took longest, and was a fault on?
slowest = tables.operations.nlargest(5, "latency_ms")
columns = ["run", "op", "key", "node", "outcome", "intended_s", "latency_ms", "phase"]
print("\nSlowest operations\n", slowest[columns].to_string(index=False), sep="")
