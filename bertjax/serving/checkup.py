"""What a server would serve: models, shapes, limits, its memory, and its rate in a short run."""

import asyncio
import resource
import sys
import time
from typing import Any

import jax
import numpy as np

from bertjax.serving.app import route_names
from bertjax.serving.keys import Keys
from bertjax.serving.programs import Asked, Program
from bertjax.serving.served import Served
from bertjax.serving.server import Server
from bertjax.text.framing import TokenSequence

# Each program is measured for so long, on texts of so many tokens where it takes as many.
SECONDS, TOKENS = 1.0, 32


def check_up(server: Server, keys: Keys) -> dict[str, Any]:
    """Returns what a server serves and how fast; it must be warm.

    Args:
        server: of which nobody else asks anything.
        keys: of those who may call.
    """
    compiled = server.metrics.compiled
    models = {name: _describe(server, served) for name, served in server.models.items()}
    limits = server.config._asdict()
    del limits["hostname"], limits["port"]
    return {
        "models": models,
        "routes": route_names(server),
        "limits": {**limits, "cors_allow_origin": list(limits["cors_allow_origin"])},
        "api_keys": len(keys),
        "devices": [f"{device.platform}:{device.id}" for device in server.devices],
        "memory_bytes": _memory(server),
        "compiled_under_traffic": server.metrics.compiled - compiled,
    }


def _describe(server: Server, served: Served) -> dict[str, Any]:
    model, explainer = served.model, served.explainer
    return {
        "architecture": model.architecture,
        "engine": model.engine,
        "directory": None if model.directory is None else str(model.directory),
        "max_input_length": served.max_length,
        "labels": list(served.labels),
        "explains": {
            "answers": explainer is not None and explainer.explains,
            "attention": explainer is not None,
            "max_tokens": explainer.max_tokens if explainer else 0,
        },
        "programs": {
            name: {
                "shapes": [f"{shape.rows} x {shape.length}" for shape in program.shapes],
                **_measure(server, program, served.max_length, name == "token"),
            }
            for name, program in served.programs.items()
        },
    }


def _measure(server: Server, program: Program, longest: int, has_masks: bool) -> dict[str, Any]:
    """Returns how many texts and tokens a second a program takes from the queue."""
    length = min(TOKENS, longest)
    position = np.array([1]) if has_masks else None
    asked = Asked(TokenSequence(np.zeros(length, np.int32), length), position)
    # As many as may wait, or as fill some batches.
    together = min(server.config.max_concurrent_requests, 4 * program.batch_tokens // length + 1)

    async def go() -> tuple[int, float]:
        began, texts = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            texts += len((await server.engine.run(program, [asked] * together)).outputs)
        return texts, time.perf_counter() - began

    texts, seconds = asyncio.run(go())
    return {
        "text_tokens": length,
        "texts_per_second": texts / seconds,
        "tokens_per_second": texts * length / seconds,
    }


def _memory(server: Server) -> dict[str, int]:
    """Returns the bytes of parameters, of the process at its largest, and of each device."""
    leaves = {
        id(leaf): leaf.nbytes
        for served in server.models.values()
        for leaf in jax.tree.leaves((dict(served.model.params), dict(served.model.spare)))
    }
    files = (one.model.module.session for one in server.models.values() if one.model.is_exported)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    found = {
        "parameters": sum(leaves.values()) + sum(session.bytes for session in files),
        "process_at_most": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    for device in server.devices:
        used = (device.memory_stats() or {}).get("peak_bytes_in_use")
        if used is not None:
            found[f"{device.platform}:{device.id}_at_most"] = used
    return found
