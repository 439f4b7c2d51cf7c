"""Kernels: the local arithmetic of the protocols, each with a plain reference and a fused CPU body.

One file a subject:

=================  =====================================================================
``ring``           products and shifts over Z_2^64
``lookup``         XOR-shared one-hots and the table sums they select
``dpf``            distributed point functions: the same one-hots from short keys
``histogram``      thermometer counts, bit picks and row rotations (the softmax maximum)
``elementwise``    one-pass formulas of openings, truncations and splines
``packing``        bytes and bits packed tight for the wire
``planes``         bits of 64 elements a word, and gates on them
``replicated``     masked summands of products, truncations, sums of bits, exponentials
``field``          vectors modulo a 61-bit prime, and exact sums of random subsets, for proofs
``gf64``           vectors over GF(2^64), and claims about gates, for proofs
``shrink``         matrices times random 0/1 vectors, for proofs
``warm``           compiles or loads every body ahead of time
=================  =====================================================================

Tensors are ``torch.int64`` in two's complement for Z_2^64, or ``torch.uint8`` for bits and bytes. A public function
picks its body by the tensors' device; every body gives the bits of its ``*_reference``. Bodies release the
interpreter's lock and use one thread. Nothing here knows a protocol, a party or a network.
"""
