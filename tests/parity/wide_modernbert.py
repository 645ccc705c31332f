"""ModernBERT of transformers in float64: by itself it turns and weighs in float32 always."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def computing_widely() -> Iterator[None]:
    """Has its rotary positions, its softmax and its masked-LM loss computed in the model's dtype.

    The formulas are those of modeling_modernbert.py without its conversions. The frequencies are
    of float32, rounded correctly: torch's powers are off by a bit here and there.
    """
    import torch
    from transformers.models.modernbert import modeling_modernbert as theirs

    def find_angles(self: Any, x: Any, position_ids: Any, layer_type: str) -> tuple[Any, Any]:
        theirs = getattr(self, f"{layer_type}_inv_freq")
        size, base = 2 * len(theirs), self.config.rope_parameters[layer_type]["rope_theta"]
        exponents = (torch.arange(0, size, 2, dtype=torch.float) / size).double()
        frequencies = 1.0 / (base**exponents).float()
        assert torch.allclose(frequencies.to(x.dtype), theirs, rtol=3e-7, atol=0)
        angles = position_ids[..., None].to(x.dtype) * frequencies.to(x.dtype)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    def turn(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> tuple[Any, Any]:
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return tuple(part * cos + theirs.rotate_half(part) * sin for part in (q, k))

    def attend(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, scaling: float,
        **others: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        scores = query @ key.transpose(2, 3) * scaling
        probs = (scores if attention_mask is None else scores + attention_mask).softmax(-1)
        return (probs @ value).transpose(1, 2).contiguous(), probs

    def judge(self: Any, logits: Any, labels: Any, **others: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    rotary, masked_lm = theirs.ModernBertRotaryEmbedding, theirs.ModernBertForMaskedLM
    with (
        mock.patch.object(rotary, "forward", find_angles),
        mock.patch.object(theirs, "apply_rotary_pos_emb", turn),
        mock.patch.object(theirs, "eager_attention_forward", attend),
        mock.patch.object(masked_lm, "loss_function", judge),
    ):
        yield
