"""Histories of sets, queues, locks and the like, whoever recorded them."""
