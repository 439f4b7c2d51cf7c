"""What operators may see of a running system: traces, metrics, logs. Needs neither torch nor Ray.

Everything goes through lists of what is allowed (``allowed``), never through lists of what is forbidden: a share, a
text or a key that somebody passes by mistake has no name and no type under which it could leave. Exceptions of others
give their class and their place in the code, never their text.
"""
