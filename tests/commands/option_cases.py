"""For each option of each command, a command line and what is added to it to show an effect."""

# What cannot differ here, and why.
HOW = "how a model is computed is loaded.load's, for all commands: tests/test_loaded.py"
ELSEWHERE = {
    **{
        (command, "--dtype"): HOW
        for command in (
            "fill-mask",
            "predict",
            "evaluate",
            "analyze",
            "explain",
            "what-if",
            "contexts",
            "prune",
        )
    },
    **{
        (command, "--attention"): HOW
        for command in ("fill-mask", "predict", "evaluate", "embed", "prune", "serve")
    },
    **{
        (command, "--devices"): "they share the work, not what comes of it: tests/test_devices.py"
        for command in (
            *("fill-mask", "predict", "evaluate", "embed", "analyze", "attention", "explain"),
            *("what-if", "contexts", "prune"),
        )
    },
    (
        "attention",
        "--overwrite",
    ): "needs a folder: tests/analysis/capture/test_export.py",
    ("bench", "what"): "there is one thing to measure",
    ("evaluate", "--watch"): "needs a run: tests/train/test_pretrain.py",
    ("evaluate", "--interval"): "the same",
    ("serve", "--access-log"): "goes to standard error: tests/serving/test_process.py",
    ("serve", "--max-batch-wait-ms"): "shows in time alone: tests/serving/test_engine.py",
    **{
        ("serve", option): "each log has a salt of its own: tests/serving/test_request_log.py"
        for option in ("--log", "--log-sample", "--log-texts", "--log-max-bytes")
    },
}

MLM, LABELS, TAGS = (["--model", name] for name in ("mlm", "labels", "tags"))
TABLE = ["--input", "table.csv"]
# The options of tables and text files, after a command line that reads one.
READING = {
    "--text-column": [*TABLE, "--text-column", "other"],
    "--columns": ["--input", "bare.csv", "--columns", "text", "label"],
    "--delimiter": ["--input", "bars.csv", "--delimiter", "|"],
    "--quoting": [*TABLE, "--quoting", "none"],
    "--extra-columns": ["--input", "ragged.csv", "--extra-columns", "ignore"],
    "--encoding": ["--input", "latin.txt", "--encoding", "latin-1"],
    "--errors": ["--input", "latin.txt", "--errors", "replace"],
}
PAIRS = {**READING, "--pair-column": [*TABLE, "--pair-column", "other"]}


def labelled(option):
    """The options of labelled files, each with the files that show it."""
    return {
        **unlabelled(option),
        "--label-column": (LABELS, [option, "table.csv"], ["--label-column", "second"]),
        "--label-columns": (LABELS, [option, "table.csv"], ["--label-columns", "x", "y"]),
        "--label-separator": (LABELS, [option, "table.csv"], ["--label-separator", "|"]),
        "--spelling": (LABELS, [option, "twins.csv"], ["--spelling", "merge"]),
        "--tag-column": (TAGS, [option, "tags.conll"], ["--tag-column", "2"]),
        "--labels": (TAGS, [option, "tags.jsonl"], ["--labels", "O", "B-X", "I-X"]),
    }


def unlabelled(option):
    """Those of them that are of files without labels, too."""
    return {
        "--text-column": (LABELS, [option, "table.csv"], ["--text-column", "other"]),
        "--pair-column": (LABELS, [option, "table.csv"], ["--pair-column", "other"]),
        "--columns": (LABELS, [option, "bare.csv"], ["--columns", "text", "label"]),
        "--delimiter": (LABELS, [option, "bars.csv"], ["--delimiter", "|"]),
        "--quoting": (LABELS, [option, "table.csv"], ["--quoting", "none"]),
        "--scheme": (TAGS, [option, "tags.conll"], ["--scheme", "none"]),
        "--token-column": (TAGS, [option, "tags.conll"], ["--token-column", "2"]),
        "--encoding": (LABELS, [option, "latin.csv"], ["--encoding", "latin-1"]),
        "--errors": (LABELS, [option, "latin.csv"], ["--errors", "replace"]),
        "--max-length": (LABELS, [option, "long.csv"], ["--max-length", "8"]),
        "--extra-columns": (LABELS, [option, "ragged.csv"], ["--extra-columns", "ignore"]),
        "--format": (LABELS, [option, "table.dat"], ["--format", "csv"]),
    }


# Command -> (a command line, option -> what is added to it; or a triple: model, line, addition).
CASES = {
    "fill-mask": (
        [*MLM, "the [MASK] sees"],
        {
            **READING,
            "texts": ["a [MASK] ."],
            "--input": ["--input", "text.txt"],
            "--model": ["--model", "other"],
            "--top-k": ["--top-k", "2"],
            "--json": ["--json"],
        },
    ),
    "embed": (
        [*MLM, "--output", "v.npy", "the dog sees a bird ."],
        {
            **READING,
            "texts": ["a cat"],
            "--input": ["--input", "text.txt"],
            "--model": ["--model", "other"],
            "--output": ["--output", "v.parquet"],
            "--pooling": ["--pooling", "cls"],
            "--normalize": ["--normalize"],
            "--engine": ["--engine", "onnxruntime"],
            "--dtype": ["--dtype", "bfloat16"],
            "--max-length": ["--max-length", "4"],
        },
    ),
    "attention": (
        [*MLM, "--output", "a.npz", "the dog sees a bird ."],
        {
            **PAIRS,
            "texts": ["a cat"],
            "--input": ["--input", "text.txt"],
            "--model": ["--model", "other"],
            "--output": ["--output", "a.arrow"],
            "--format": ["--format", "parquet"],
            "--layers": ["--layers", "1"],
            "--heads": ["--heads", "2"],
            "--words": ["--words"],
            "--hidden": ["--hidden"],
            "--context": ["--context"],
            "--dtype": ["--dtype", "float16"],
            "--max-length": ["--max-length", "4"],
            "--too-long": ["--max-length", "5", "--too-long", "windows"],
            "--json": ["--json"],
        },
    ),
    "explain": (
        [*MLM, "the [MASK] sees"],
        {
            **PAIRS,
            "--text-column": ["--input", "masks.csv", "--text-column", "other"],
            "--pair-column": ["--input", "masks.csv", "--pair-column", "other"],
            "texts": ["a [MASK] ."],
            "--input": ["--input", "masks.txt"],
            "--model": ["--model", "other"],
            "--answer": ["--answer", "dog"],
            "--word": ["--word", "the"],
            "--method": ["--method", "rollout"],
            "--faithfulness": ["--faithfulness"],
            "--json": ["--json"],
        },
    ),
    "what-if": (
        [*MLM, "--word", "1", "the dog sees a bird"],
        {
            **PAIRS,
            "texts": ["a cat"],
            "--input": ["--input", "text.txt"],
            "--model": ["--model", "other"],
            "--word": ["--word", "2"],
            "--by": ["--by", "red"],
            "--seed": (MLM, ["--json", "--word", "1", "the dog sees"], ["--seed", "5"]),
            "--json": ["--json"],
        },
    ),
    "contexts": (
        [*MLM, "--word", "dog", "the dog sees a bird", "--input", "text.txt"],
        {
            **PAIRS,
            "text": None,
            "--input": ["--input", "masks.txt"],
            "--model": ["--model", "other"],
            "--word": ["--word", "the"],
            "--layer": ["--layer", "0"],
            "--top-k": ["--top-k", "1"],
            "--any-word": ["--any-word"],
            "--seed": ["--seed", "5"],
            "--json": ["--json"],
        },
    ),
    "serve": (
        [*MLM, "--no-explain"],
        {
            "--engine": ["--engine", "onnxruntime"],
            "--explain": ["--explain"],
            "--explain-max-tokens": (MLM, [], ["--explain-max-tokens", "3"]),
            "--model": ["--model", "other"],
            "--dtype": ["--dtype", "bfloat16"],
            "--hostname": ["--hostname", "0.0.0.0"],
            "--port": ["--port", "80"],
            "--max-concurrent-requests": ["--max-concurrent-requests", "2"],
            "--max-batch-tokens": ["--max-batch-tokens", "24"],
            "--max-client-batch-size": ["--max-client-batch-size", "2"],
            "--max-input-length": ["--max-input-length", "4"],
            "--auto-truncate": ["--no-auto-truncate"],
            "--payload-limit": ["--payload-limit", "60"],
            "--request-timeout": ["--request-timeout", "9"],
            "--api-key-file": ["--api-key-file", "text.txt"],
            "--cors-allow-origin": ["--cors-allow-origin", "https://example.org"],
            "--allow-reload": ["--allow-reload"],
            "--tokenization-workers": ["--tokenization-workers", "7"],
            "--check": ["--check"],
            "--json": (MLM, ["--check", "--no-explain"], ["--json"]),
        },
    ),
    "convert": (
        [*LABELS, "--output", "new"],
        {
            "--model": ["--model", "other"],
            "--output": ["--output", "elsewhere"],
            "--overwrite": (LABELS, ["--output", "mlm"], ["--overwrite", "true"]),
            "--architecture": ["--architecture", "BertModel"],
            "--dtype": ["--dtype", "bfloat16"],
            "--json": ["--json"],
        },
    ),
    "info": (["mlm"], {"directory": None, "--json": ["--json"]}),
    "compare": (
        ["a.json", "b.json"],
        {"a": None, "b": None, "--level": ["--level", "0.9"], "--json": ["--json"]},
    ),
    "verify": (
        [*MLM],
        {
            "--model": ["--model", "other"],
            "--against": ["--against", "other"],
            "--tolerance": ["--tolerance", "1e-30"],
            "--json": ["--json"],
        },
    ),
    "predict": (
        [*LABELS, "the dog sees"],
        {
            **unlabelled("--input"),
            # Names of tags that tell by themselves need no scheme.
            "--scheme": (["--model", "types"], ["--input", "tags.conll"], ["--scheme", "none"]),
            "texts": ["a bad bird"],
            "--input": ["--input", "table.csv"],
            "--model": ["--model", "tags"],
            "--output": ["--output", "p.jsonl"],
            "--engine": ["--engine", "onnxruntime"],
        },
    ),
    "evaluate": (
        [*LABELS, "--data", "table.csv"],
        {
            **labelled("--data"),
            "--data": ["--data", "bare.csv"],
            "--model": ["--model", "other_labels"],
            "--engine": ["--engine", "onnxruntime"],
            "--output": ["--output", "s.json"],
            "--resamples": ["--resamples", "0"],
            "--figures": ["--figures", "pictures"],
            "--calibrate": ["--calibrate"],
            "--without-heads": ["--without-heads", "0-1,1-2"],
            "--json": ["--json"],
        },
    ),
    "prune": (
        [*LABELS, "--data", "table.csv", "--heads", "1", "--output", "new"],
        {
            **{
                option: (model, [*line, "--heads", "1", "--output", "new"], more)
                for option, (model, line, more) in labelled("--data").items()
            },
            "texts": (MLM, ["--heads", "1", "--output", "new", "the dog sees"], ["a red bird"]),
            "--input": (
                MLM,
                ["--heads", "1", "--output", "new", "--input", "text.txt"],
                ["--input", "masks.txt"],
            ),
            "--model": ["--model", "other_labels"],
            "--data": ["--data", "bare.csv"],
            "--heads": ["--heads", "2"],
            "--by": ["--by", "random"],
            "--test": ["--test", "more.csv"],
            "--output": ["--output", "elsewhere"],
            "--shrink": ["--heads", "2", "--shrink"],
            "--normalize-layers": ["--normalize-layers"],
            "--max-examples": ["--max-examples", "1"],
            "--seed": ["--seed", "5"],
            "--json": ["--json"],
        },
    ),
}
# Commands that compile for long, or print times: lines in which every option is read. What each
# option does, their own tests show (tests/analysis, tests/verification, tests/planning).
READ = {
    "drift": [
        ["--reference", "earlier", "--log", "later"],
        ["--reference", "text.txt", "--model", "mlm", "--log", "later"],
    ],
    "analyze": [
        [*MLM, "--text", "text.txt", "--output", "report"],
        [*LABELS, "--text", "text.txt", "--labels", "table.csv", "--output", "report"],
    ],
    "bench": [
        ["attention", "--shapes", "1x8x1x8", "--backends", "explicit", "--output", "times"],
        [
            *("attention", "--shapes", "1x8x1x8", "--backends", "explicit", "--rounds", "1"),
            *("--compare", "times/attention.json"),
        ],
    ],
    "export": [
        [*MLM, "--output", "out", "--int8", "--check", "text.txt"],
        [*LABELS, "--output", "out", "--int8", "--data", "table.csv", "--most-lost", "0.5"],
        [*MLM, "--architecture", "BertModel", "--output", "out"],
    ],
    "gate": [
        [
            *(*LABELS, "--against", "other_labels", "--data", "table.csv", "--output", "page"),
            *("--require", "accuracy >= old - 0.5", "--slice", "second", "--speed-texts", "1"),
        ],
    ],
    "plan": [
        ["--config", "plan.yaml", "--devices", "cpu:1", "--length", "16", "--vocab-size", "99"],
        ["--config", "plan.yaml", "--topology", "nowhere:1x1"],
    ],
}
