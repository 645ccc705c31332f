"""A server that is asked a few calls in the place of listening, and what it answers."""

import time

from starlette.testclient import TestClient

# Answers say what a server computes, cuts, refuses and allows; of /info what no answer shows.
OF_INFO = ("models", "max_batch_tokens", "tokenization_workers")
CALLS = [
    ("/embed", {"inputs": "the dog sees", "normalize": False}),
    ("/embed", {"inputs": ["the dog sees a red bird", "a cat", "a bird"]}),
    ("/embed", {"inputs": ["the dog " * 9]}),
    ("/explain", {"inputs": "the [MASK] sees", "methods": ["rollout"]}),
    ("/models/mlm/reload", {}),
]


def ask(listener, sockets):
    """Prints where a listener would listen, how it would end, and what its application answers."""
    config = listener.config
    print([own.getsockname() for own in sockets], config.timeout_graceful_shutdown)
    with TestClient(config.app, raise_server_exceptions=False) as client:
        while client.get("/health").status_code == 503:
            time.sleep(0.01)
        info = client.get("/info").json()
        print([info.get(name) for name in OF_INFO])
        for path, call in CALLS:
            answer = client.post(path, json=call, headers={"origin": "https://example.org"})
            print(answer.status_code, answer.text)
            print(answer.headers.get("access-control-allow-origin"))
