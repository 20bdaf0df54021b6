"""Targets: where a run takes place, and how a fault becomes real there.

A target is a module with a function ``conduct(run)``: it starts a cluster, drives load and faults,
reads every key at every node at the end, leaves all of it in the run folder, and stops whatever it
started, for whatever reason it is left. It returns what went wrong, None if nothing did, and raises
`TargetFailed`.
"""
