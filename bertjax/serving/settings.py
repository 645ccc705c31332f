"""The settings of a server.

Names, defaults and environment variables are those of text-embeddings-inference where it has them.

Source: text-embeddings-inference 1.9, `text-embeddings-router --help`.
"""

from typing import NamedTuple


class ServeConfig(NamedTuple):
    """Settings of a server.

    Attributes:
        hostname: address to listen on.
        port: port to listen on; 0 takes a free one.
        max_concurrent_requests: texts that may wait at a time; more are refused with 429.
        max_batch_tokens: tokens of a batch, padding included; 0 takes what suits the device.
        max_batch_wait_ms: how long a batch that is not full waits for more, in milliseconds.
        max_client_batch_size: texts of one call.
        max_input_length: tokens of one text; 0 takes what the model's directory says.
        auto_truncate: whether longer texts are cut, where a call does not say.
        payload_limit: bytes of a call's body.
        request_timeout: seconds that a call may take.
        tokenization_workers: threads that tokenize; 0 takes one for each core.
        access_log: whether every call is a line of JSON on standard error.
        allow_reload: whether a call may have a model read again from its directory.
        explain: whether answers are explained, and attention is given.
        explain_max_tokens: tokens of a text that is explained.
        cors_allow_origin: origins whose pages may call; "*" for all.
        log: folder for a sample of requests and answers; "" for none.
        log_sample: share of the requests that are logged.
        log_texts: whether lines have texts, not only hashes of them.
        log_max_bytes: of the folder; the oldest lines are deleted.
    """

    hostname: str = "127.0.0.1"
    port: int = 3000
    max_concurrent_requests: int = 512
    max_batch_tokens: int = 0
    max_batch_wait_ms: float = 0.0
    max_client_batch_size: int = 32
    max_input_length: int = 0
    auto_truncate: bool = True
    payload_limit: int = 2_000_000
    request_timeout: float = 60.0
    tokenization_workers: int = 0
    access_log: bool = True
    allow_reload: bool = False
    explain: bool = True
    explain_max_tokens: int = 128
    cors_allow_origin: tuple[str, ...] = ()
    log: str = ""
    log_sample: float = 0.01
    log_texts: bool = False
    log_max_bytes: int = 100_000_000
