"""The party endpoint of one operator: a front that owns keys and policy, and slots that compute.

    gateways ──TLS──▶ front (no Ray) ──Unix sockets──▶ slots (Ray actors), each one party of one triple
    peers    ──TLS──────────┘  the front reads which session a connection is for and hands it to that slot

``front.py`` puts the parts together; ``mpc-ray party`` runs it. ``gateways.py`` and ``peers.py`` are its two ports,
``jobs.py`` what a party checks before it touches a share, ``triples.py`` what its slots are part of, ``standing.py``
and ``models.py`` its folder and its store. ``hosting.py`` keeps ``host.py`` alive, the child process that holds the
operator's own Ray; ``slot.py`` is the program of a slot.
"""
