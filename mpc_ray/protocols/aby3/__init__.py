"""aby3: arithmetic and Boolean replicated sharing and the conversions between them, no dealer.

Nothing is opened and nothing is dealt: every message is a masked summand of a product or of a one-party sum, so that
malicious_3pc can prove each (``claims``).
"""
