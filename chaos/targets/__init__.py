"""Targets: where a run takes place, and how faults are applied there.

A target is a module with a function ``conduct(run)``: it starts a cluster, drives load and faults,
reads every key at every node at the end, leaves everything in the run folder, and stops whatever it
started, however it ends. It returns what went wrong, None if nothing did, and raises
`TargetFailed`.
"""
