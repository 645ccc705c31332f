"""bertjax: BERT in JAX.

    import bertjax

    model = bertjax.load("bert_tiny_mlm")  # a folder, or a name on the Hugging Face hub
    model.fill_mask(["Paris is the [MASK] of France."])
    model.module.apply({"params": model.params}, token_ids)  # pure: jit, grad, vmap

Programs: `bertjax tokenizer`, `prepare`, `pretrain`, `adapt`, `finetune` and `sweep` make models;
`bertjax --help` lists those that use and study them. From Python: `bertjax.load`,
`bertjax.finetune`, `bertjax.pretrain`, `bertjax.adapt`, and the methods of `bertjax.Model`:
`fill_mask`, `predict`, `embed`, `evaluate`, `compare`, `calibrate`, `gate`, `drift`, `verify`,
`trace`, `heads`, `compare_layers`, `explain`, `what_if`, `contexts`, `analyze`, `prune`,
`study_pruning`, `save`, `export`. `bertjax.Edit` is a change at a probe point, for
`module.apply(..., edit=...)`, and `bertjax.gate_heads` makes those that turn heads down.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bertjax.program.cuda_plugin import leave_cuda_out

if TYPE_CHECKING:
    from bertjax.config import BertConfig
    from bertjax.loaded import Model, load
    from bertjax.model.probe_points import Edit, gate_heads
    from bertjax.program.errors import UserError
    from bertjax.training.adapt import adapt
    from bertjax.training.finetune import finetune
    from bertjax.training.pretrain import pretrain

__version__ = "0.3.0"

# Name -> the module that defines it, which is imported when the name is first used: jax takes
# seconds.
_PLACES = {
    "BertConfig": "bertjax.config",
    "Edit": "bertjax.model.probe_points",
    "Model": "bertjax.loaded",
    "UserError": "bertjax.program.errors",
    "adapt": "bertjax.training.adapt",
    "finetune": "bertjax.training.finetune",
    "gate_heads": "bertjax.model.probe_points",
    "load": "bertjax.loaded",
    "pretrain": "bertjax.training.pretrain",
}

__all__ = [
    "BertConfig",
    "Edit",
    "Model",
    "UserError",
    "__version__",
    "adapt",
    "finetune",
    "gate_heads",
    "load",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'bertjax' has no attribute {name!r}")
    leave_cuda_out()
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
