"""An existing OpenAI program, made private by its base URL alone.

    mpc-ray proxy --config proxy.yaml &
    python examples/openai_proxy.py --base-url http://127.0.0.1:8089/v1

Texts go to the proxy on this machine and no further; what leaves it are shares, sealed to three operators. LangChain:
OpenAIEmbeddings(base_url=…, check_embedding_ctx_length=False), so that it sends texts and not ids of OpenAI's own
tokenizer. LlamaIndex: OpenAIEmbedding(api_base=…, model_name=…). Needs: pip install openai.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import openai

DOCUMENTS = [
    "Our refund policy allows returns within thirty days.",
    "The server room is cooled to eighteen degrees.",
    "Employees accrue two days of leave a month.",
]
QUESTION = "Can I send a purchase back?"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base-url", default="http://127.0.0.1:8089/v1")
    parser.add_argument("--api-key", default="unused", help="the proxy's local key, if it asks for one")
    parser.add_argument("--model", help="default: the first that the proxy offers")
    parser.add_argument("question", nargs="?", default=QUESTION)
    given = parser.parse_args(arguments)
    try:
        with openai.OpenAI(base_url=given.base_url, api_key=given.api_key) as client:
            model = given.model or next(iter(client.models.list())).id
            answer = client.embeddings.create(input=[*DOCUMENTS, given.question], model=model)
    except openai.OpenAIError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    *documents, question = (np.array(one.embedding) for one in answer.data)
    scores = [float(document @ question) for document in documents]
    for score, text in sorted(zip(scores, DOCUMENTS, strict=True), reverse=True):
        print(f"{score:.3f}  {text}")
    print(f"model {answer.model}, {answer.usage.prompt_tokens} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
