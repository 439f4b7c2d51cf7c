"""malicious_3pc: aby3's body, and a proof of every product before any output leaves a party.

Security with abort against one corrupt party. Each party P_i proves to its two neighbours, who cannot both be
corrupt, that what it sent was right: A = P_{i-1} and B = P_{i+1}, the *chair*, who alone releases coins. One file a
subject:

==============  ====================================================================================
``chunks``      aby3's claims gathered into chunks of bounded size
``stretches``   the numbers of claims, as each of the three roles of a proof holds them
``keys``        a key for every PRF call of every proof, and the coins
``copies``      hashes of what two parties must hold alike
``schedule``    which message of a proof travels when, from whom to whom, and how long it is
``arithmetic``  claims mod 2^64 as one inner product modulo a random prime: subsets, quotients, weights
``boolean``     claims on words of gates as one inner product over GF(2^64)
``sumcheck``    an inner product shared by A and B, reduced in rounds, masked and compared
``roles``       prover, A and chair as programs: what each sends, and what it refuses
``proof``       the three proofs of a chunk at one party
``background``  proofs that ride along in the frames of the inference, and the barrier at its end
==============  ====================================================================================

The specification, with the attacks that each step stops, is in docs/security.md.
"""
