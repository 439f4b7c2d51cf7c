"""Listening for HTTP with bounds that uvicorn lacks: the gateway and the proxy both do. Needs neither torch nor Ray."""
