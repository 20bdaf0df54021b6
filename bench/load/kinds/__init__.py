"""Workloads of other kinds than registers, done with the operations that a register has."""
