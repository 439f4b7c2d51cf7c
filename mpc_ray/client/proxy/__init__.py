"""The sidecar: OpenAI's and TEI's protocols on the client's own machine, sealed requests to the gateway.

``embedder``  what it needs of a model
``faults``    errors in the forms that OpenAI's and TEI's clients parse
``openai``    ``/v1/embeddings``, ``/v1/models``
``tei``       ``/embed``, ``/info``, ``/health``, ``/tokenize``
``app``       the application: local key, host names, body limit
``host``      serving it, and the graceful end

Texts are plain here, and only here: it runs where its caller runs. They are never logged.
"""
