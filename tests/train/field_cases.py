"""For every field of every program: the words that make it differ, and those before them."""

from pathlib import Path

from bertjax.commands.prepare import PrepareConfig
from bertjax.commands.tokenizer import TokenizerConfig
from bertjax.program.config_fields import flat_fields
from bertjax.sweeps.sweep import SweepConfig
from bertjax.training.adapt_config import AdaptConfig
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.pretrain_config import PretrainConfig

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"  # V=99, M=17
TREEBANK = "treebank.conllu"
READER = {
    "input": "--input other.txt",
    "text_column": "--input texts.csv / --text-column other",
    "encoding": "--input latin.txt / --encoding latin-1",
    "errors": "--input latin.txt / --errors replace",
    "document_separator": "/ --document-separator line",
}
TEXT_CLEANING = {
    "cleaning.fix_unicode": "/ --cleaning.fix-unicode false",
    "cleaning.normalization": "/ --cleaning.normalization NFKC",
    "cleaning.minimum_characters": "/ --cleaning.minimum-characters 60",
}
TOKENIZER = {
    **READER,
    **TEXT_CLEANING,
    "kind": "/ --kind bpe --vocab-size 300",
    "vocab_size": "/ --vocab-size 80",
    "lowercase": "/ --lowercase false",
    "strip_accents": "/ --strip-accents",
    "minimum_frequency": "/ --minimum-frequency 900",
    "family": "/ --family distilbert",
    "output": "/ --output elsewhere",
    "overwrite": "--output other_tokenizer / --overwrite",
    "json": "/ --json",
}
PREPARE = {
    **READER,
    "sentence_per_line": "/ --sentence-per-line",
    "unwrap_lines": "/ --unwrap-lines",
    **TEXT_CLEANING,
    "cleaning.boilerplate_documents": "/ --cleaning.boilerplate-documents 5",
    "duplicates.near_threshold": "/ --duplicates.near-threshold 0",
    "pairing": "/ --pairing none",
    "duplicate_factor": "/ --duplicate-factor 2",
    "short_sequence_probability": "/ --short-sequence-probability 0.9",
    "max_length": "/ --max-length 40",
    "examples_per_row": "/ --examples-per-row 1",
    "language": "/ --language es",
    "validation_fraction": "/ --validation-fraction 0.3",
    "test_fraction": "/ --test-fraction 0.3",
    "seed": "/ --seed 5",
    "tokenizer": "/ --tokenizer other_tokenizer",
    "output": "/ --output elsewhere",
    "overwrite": "--output rows / --overwrite",
    "json": "/ --json",
    "workers": None,  # the result does not depend on it: test_number_of_workers_is_heeded
}


# What both trainings have, each with the function of a config that shows the field.
OPTIMIZER = {
    "name": "lamb",
    "learning_rate": None,
    "weight_decay": "0.5",
    "beta1": "0.5",
    "beta2": "0.5",
    "clip_norm": None,
}
BOTH = {
    **{
        f"optimizer.{name}": value and f"/ --optimizer.{name} {value}"
        for name, value in OPTIMIZER.items()
    },
    "schedule.name": "/ --schedule.name cosine",
    "schedule.warmup": "/ --schedule.warmup 0.5",
    "schedule.end": "/ --schedule.end 0.5",
    "schedule.power": "--schedule.name polynomial / --schedule.power 2",
    "schedule.decay": "--schedule.name warmup-stable-decay / --schedule.decay 0.5",
    "budget.steps": "/ --budget.steps 7",
    "budget.epochs": "--budget.steps null --budget.epochs 1 / --budget.epochs 7",
    "budget.minutes": "--budget.steps null --budget.minutes 1 / --budget.minutes 7",
    "mesh.data": "--mesh.fsdp 2 / --mesh.data 2",
    "mesh.fsdp": "/ --mesh.fsdp 2",
    "mesh.tensor": "/ --mesh.tensor 2",
    **dict.fromkeys(
        [f"checkpoint.{name}" for name in ("every", "keep_newest", "keep_best")]
        + ["run", "seed", "batch_size", "accumulation", "dtype", "remat", "attention"]
        + ["log_every", "most_skipped", "resume", "dry_run", "json"]
    ),
}
# Wide enough weights that a generator is sure of some token, at any temperature.
REPLACED = "--model.family electra --model.size tiny --objective replaced-tokens"
REPLACED += " --model.initializer_range 0.5"
PRETRAIN = {
    **BOTH,
    "masking.strategy": "/ --masking.strategy span",
    "masking.rate": "/ --masking.rate 0.5",
    "masking.end_rate": "/ --masking.end-rate 0.5",
    "phases.shares": "--budget.steps 8 / --phases.shares 0.5 0.5",
    "phases.lengths": "--budget.steps 8 --phases.shares 0.5 0.5 / --phases.lengths 8 16",
    "phases.data": "--budget.steps 8 --phases.shares 0.5 0.5 / --phases.data rows other",
    "phases.batch_sizes": "--budget.steps 8 --phases.shares 0.5 0.5 / --phases.batch-sizes 8 16",
    "phases.causal": "--budget.steps 8 --phases.shares 0.5 0.5 / --phases.causal true false",
    **{
        f"replaced_tokens.{name}": f"{REPLACED} / --replaced_tokens.{name} {value}"
        for name, value in (
            ("generator_size", 1),
            ("discriminator_weight", 7),
            ("temperature", 3),
        )
    },
    "model.family": "/ --model.family roberta",
    "model.size": "/ --model.size small",
    "model.num_hidden_layers": "/ --model.num-hidden-layers 3",
    "model.hidden_size": "/ --model.hidden-size 128",
    "model.num_attention_heads": "/ --model.num-attention-heads 2",
    "model.intermediate_size": "/ --model.intermediate-size 33",
    "model.hidden_act": "/ --model.hidden-act relu",
    "model.hidden_dropout_prob": "/ --model.hidden-dropout-prob 0.3",
    "model.attention_probs_dropout_prob": "/ --model.attention-probs-dropout-prob 0.3",
    "model.initializer_range": "/ --model.initializer-range 0.3",
    "model.max_position_embeddings": "/ --model.max-position-embeddings 33",
    "model.attention_window": "/ --model.attention-window 3",
    "model.local_attention": "--model.family modernbert / --model.local-attention 4",
    "model.global_attn_every_n_layers": (
        "--model.family modernbert / --model.global-attn-every-n-layers 2"
    ),
    "evaluation.every": "/ --evaluation.every 3",
    **dict.fromkeys(
        ["objective", "data", "distributed", "model.init", "model.start", "evaluation.rows"]
        + ["evaluation.batch_size", "evaluation.at_start", "evaluation.patience"]
        + ["evaluation.min_gain", "replay.data", "replay.share", "average", "z_loss"]
        + [f"development.{name}" for name in ("examples", "treebank", "sentences")]
    ),
}
FINETUNE = {
    **BOTH,
    "transfer.layer_decay": "/ --transfer.layer-decay 0.5",
    "transfer.freeze_embeddings": "/ --transfer.freeze-embeddings",
    "transfer.freeze_layers": "/ --transfer.freeze-layers 1",
    "model.init": "/ --model.init nowhere",
    "model.num_hidden_layers": "/ --model.num-hidden-layers 1",
    "model.hidden_dropout_prob": "/ --model.hidden-dropout-prob 0.3",
    "model.attention_probs_dropout_prob": "/ --model.attention-probs-dropout-prob 0.3",
    "model.classifier_dropout": "/ --model.classifier-dropout 0.3",
    "model.classifier_norm": "/ --model.classifier-norm layer",
    "data.train": "/ --data.train more.csv",
    "data.validation": "/ --data.validation more.csv",
    "data.test": "/ --data.test more.csv",
    "data.validation_share": "/ --data.validation-share 0.5",
    "data.test_share": "/ --data.test-share 0.5",
    "data.text_column": "/ --data.text-column other",
    "data.pair_column": "--data.text-column text / --data.pair-column other",
    "data.label_column": "/ --data.label-column second",
    "data.label_columns": "--task multi-label / --data.label-columns x y",
    "data.label_separator": "--task multi-label / --data.label-separator o",
    "data.columns": "--data.train bare.csv / --data.columns text label",
    "data.delimiter": "--data.train bars.csv / --data.delimiter |",
    "data.quoting": "/ --data.quoting none",
    "data.extra_columns": "--data.train ragged.csv / --data.extra-columns ignore",
    "data.format": "--data.train table.dat / --data.format csv",
    "data.spelling": "--data.train twins.csv / --data.spelling merge",
    "data.labels": "/ --data.labels bad good",
    "data.token_column": "--task tokens --data.train tags.conll / --data.token-column 2",
    "data.tag_column": "--task tokens --data.train tags.conll / --data.tag-column 2",
    "data.scheme": "--task tokens --data.train tags.conll / --data.scheme none",
    "data.encoding": "--data.train latin.csv --data.errors replace / --data.encoding latin-1",
    "data.errors": "--data.train latin.csv / --data.errors replace",
    "task": "/ --task regression",
    "label_smoothing": "/ --label-smoothing 0.3",
    "class_weights": "--data.train uneven.csv / --class-weights balanced",
    **dict.fromkeys(
        ["seeds", "max_length", "packing"]
        + [f"scoring.{name}" for name in ("every_epochs", "score", "patience")]
    ),
}
# What it hands on to a pretraining has its cases there.
ADAPT = dict.fromkeys(name for name, _ in flat_fields(AdaptConfig))
SWEEP = {
    "program": {"program": "pretrain"},
    "base": {"base": "base.yaml"},
    "fixed": {"fixed": {"steps": 3}},
    "space": {"space": {"width": {"choices": [4]}}},
    "score": {"score": "loss"},
    "direction": {"direction": "minimize"},
    "trials": {"trials": 3},
    "sampler": {"sampler": "grid"},
    "pruner": {"pruner": "halving", "trials": 4, "fixed": {"pause": 0.4}},
    "workers": {"workers": 2, "environments": [{"WORKER": "one"}]},
    "environments": {"environments": [{"WORKER": "one"}]},
    "seed": {"seed": 5},
    "storage": {"storage": "sqlite"},
    "output": {"output": "elsewhere"},
    "json": {"json": True},
}
CASES = {
    TokenizerConfig: TOKENIZER,
    PrepareConfig: PREPARE,
    PretrainConfig: PRETRAIN,
    FinetuneConfig: FINETUNE,
    AdaptConfig: ADAPT,
    SweepConfig: SWEEP,
}
LINES = {
    TokenizerConfig: "--input text.txt --vocab-size 60 --output new",
    PrepareConfig: "--input text.txt --tokenizer tokenizer --max-length 32 --output new --workers 1"
    " --validation-fraction 0.1 --test-fraction 0.1",
    PretrainConfig: "--data rows --run run --budget.steps 10",
    AdaptConfig: f"--model {TINY} --input text.txt --replay texts.csv --output run"
    " --budget.steps 2 --batch-size 8 --evaluation.batch_size 8",
    FinetuneConfig: f"--task classification --data.train table.csv --model.init {TINY} --run run"
    " --budget.steps 10",
}
