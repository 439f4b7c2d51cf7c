"""Correlated randomness: seeds two parties share, and the streams expanded from them."""
