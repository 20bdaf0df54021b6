"""The options of `bench/load/locustfile.py` and the workload that they describe."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import msgspec

from bench.load import ycsb
from bench.load.kinds.tasks import DEFAULT_KEYS
from bench.load.shapes import parse_shape
from bench.load.workload import (
    BadWorkload,
    MixKind,
    Workload,
    make_workload,
    parse_mix,
    read_workload,
)
from bench.record.models.run import NEEDED

UNTIL_STOPPED_S = 24 * 3600.0
KINDS = get_args(MixKind)


def add_options(parser: Any) -> None:
    """Add our options; those of the workload are also on the web page."""
    add = parser.add_argument
    add("--kind", help=f"what the operations are of: {', '.join(NEEDED)} (default: register)")
    add("--cluster-file", help="of the running cluster (default: the one started by capbench up)")
    add("--workload", help="a to f of YCSB, or a .json file; other options override it")
    add("--rate", type=float, help="operations per second, 0: closed loop (default: 300)")
    add("--shape", help="ramp:0-500/30s, steps:100,200,400/10s or spike:100,1000/10s,5s,20s")
    add("--in-flight", type=int, help="the most operations open at once (default: 256)")
    add("--keys", type=int, help="number of keys (default: 50)")
    add("--distribution", help="of keys: uniform, zipfian, latest, hotspot (default: uniform)")
    add("--key-prefix", help="prefix of key names (default: k)")
    add("--conflict-rate", type=float, help="share of operations on one key (default: 0)")
    add("--mix", help="operation kinds and weights (default: read=50,write=50)")
    add("--value-bytes", type=int, help="length of written strings, 0: integers (default: 0)")
    add("--ask", help="which node: any, in turn, or the leader (default: any)")
    add("--timeout", type=float, help="seconds to wait for an answer (default: 2)")
    add("--workload-seed", type=int, help="another seed, another plan (default: 1)")
    add("--run-folder", metavar="DIR", help="record the history there", include_in_web_ui=False)
    add("--client-name", default="load", help="of this client process", include_in_web_ui=False)


class _Parser(ArgumentParser):
    """Parses our options as Locust does, but raises BadWorkload for invalid ones."""

    def add_argument(self, *names: Any, include_in_web_ui: bool = True, **kinds: Any) -> Any:
        return super().add_argument(*names, **kinds)

    def error(self, message: str) -> NoReturn:
        raise BadWorkload(message)


def refuse_early(arguments: Sequence[str]) -> Workload:
    """The workload of these options, in which the run time is not looked at. Raises BadWorkload at
    once for those that `workload_of` would reject: Locust takes seconds to get there. Locust's own
    options are left to it."""
    parser = _Parser(add_help=False)
    add_options(parser)
    options, _ = parser.parse_known_args(arguments)
    return workload_of(Namespace(**vars(options), run_time=None, tags=None, exclude_tags=None))


def workload_of(options: Namespace) -> Workload:
    """The workload that the options describe. Raises BadWorkload."""
    # `plan_s` is the run time if the load ends by itself, not by Locust's timer.
    run_time_s = getattr(options, "plan_s", options.run_time)
    if run_time_s is None:
        run_time_s = UNTIL_STOPPED_S
    fields: dict[str, Any] = {
        "mix": {"read": 50.0, "write": 50.0},
        "duration_s": run_time_s,
        "seed": 1,
    }
    if options.workload and Path(options.workload).suffix:
        fields = msgspec.to_builtins(read_workload(Path(options.workload)))
    elif options.workload:
        fields |= ycsb.fields(options.workload)
    if options.kind in DEFAULT_KEYS:
        fields.setdefault("keys", DEFAULT_KEYS[options.kind])
    given = {
        "kind": options.kind,
        "rate_per_s": options.rate,
        "shape": options.shape,
        "in_flight": options.in_flight,
        "keys": options.keys,
        "distribution": options.distribution,
        "key_prefix": options.key_prefix,
        "conflict_rate": options.conflict_rate,
        "value_bytes": options.value_bytes,
        "ask": options.ask,
        "timeout_s": options.timeout,
        "seed": options.workload_seed,
        "mix": parse_mix(options.mix) if options.mix else None,
    }
    # The web page gives strings, empty ones for missing options.
    fields |= {name: value for name, value in given.items() if value not in (None, "")}
    if str(fields.get("rate_per_s")) in ("0", "0.0"):
        fields["rate_per_s"] = None
    workload = make_workload(fields)
    mix = select(workload.mix, options.tags or (), options.exclude_tags or ())
    duration_s = min(workload.duration_s, run_time_s)
    if workload.shape is not None:
        duration_s = min(duration_s, parse_shape(workload.shape).duration_s)
    return msgspec.structs.replace(workload, mix=mix, duration_s=duration_s)


def select(
    mix: dict[MixKind, float], tags: Sequence[str], exclude: Sequence[str]
) -> dict[MixKind, float]:
    """The operation kinds of a mix that Locust's ``--tags`` and ``--exclude-tags`` select; the tag
    of a kind is its name. Raises BadWorkload."""
    for name in (*tags, *exclude):
        if name not in KINDS:
            raise BadWorkload(f"no operation has the tag {name!r}: use {', '.join(KINDS)}")
    left = {
        kind: weight
        for kind, weight in mix.items()
        if (kind in tags or not tags) and kind not in exclude
    }
    if not sum(left.values()):
        raise BadWorkload(f"the tags leave no operation of the mix: {', '.join(mix)}")
    return left
