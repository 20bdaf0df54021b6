"""Histories of transactions: which isolation levels they do not refute, and which anomalies."""

from bench.checkers.transactions.check import check_transactions
from bench.checkers.transactions.list_append import check_list_append
from bench.checkers.transactions.rw_register import check_rw_register

__all__ = ["check_list_append", "check_rw_register", "check_transactions"]
