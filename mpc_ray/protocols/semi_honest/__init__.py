"""semi_honest_3pc: exact truncation and dealt look-ups, one corrupt party that follows the protocol.

Every sub-protocol runs on a *chunk* under an assignment of roles: two evaluators E0 and E1, which hold a
2-of-2 sharing of everything, and a dealer D, which hands out one-time-padded correlated randomness.
"""
