"""Mutants: small syntactic changes of a protocol's own source, each run against seeds.

A planted bug is a mistake that somebody thought of. A mutant is one that nobody did: a comparison
that is off by one, a line that is missing, two arguments in the wrong order. Those that no seed
catches show what the simulator cannot see.

- `operators`: which changes there are;
- `sources`: which files make a protocol;
- `trial`: one mutant in a process of its own, run until it is caught or out of budget;
- `record`: what was found so far, which ones are equivalent, and the score of each file.
"""
