"""Histories of transactions: as columns, as rows, as JSON lines."""
