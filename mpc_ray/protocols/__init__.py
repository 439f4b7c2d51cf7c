"""Protocols: blocks over shares, one folder a protocol."""
