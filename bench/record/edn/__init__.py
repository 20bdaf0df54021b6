"""Histories as Jepsen writes them, in EDN (https://github.com/edn-format/edn)."""
