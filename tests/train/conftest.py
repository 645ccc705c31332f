"""A model to fine-tune, rows to pretrain on, and a corpus to prepare."""

import os
import sys
from pathlib import Path

import jax
import pytest

from bertjax.config import BertConfig
from bertjax.interop.huggingface import save_model_directory
from bertjax.sweeps.space import PROGRAMS, Program
from bertjax.sweeps.sweep import SweepConfig, sweep
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from bertjax.text.tokenizer_training import VocabularyConfig, train_tokenizer
from bertjax.training.sharding import MeshConfig, make_mesh
from tests.parity.random_models import draw_parameters
from tests.prepared_rows import write_rows
from tests.train.fake_sweep import FAKE, SPACE, WAY
from tests.train.finetune_runs import TINY
from tests.train.pretrain_runs import (
    ROWS,
    SPECIAL,
    WORDS,
    V,
    make_arguments,
    make_columns,
    start_program,
)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """A new model of two layers, 32 wide, whose heads learn in a few dozen steps."""
    config = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=17,
        initializer_range=0.2,
    )
    params = draw_parameters(config, "BertForMaskedLM")
    path = tmp_path_factory.mktemp("pretrained") / "model"
    save_model_directory(path, config, params, TINY, "BertForMaskedLM")
    return str(path)


@pytest.fixture(scope="module")
def known_rate():
    """No measurement of the machine's rate, which takes longer than a run here."""
    with pytest.MonkeyPatch.context() as patch:
        for program in ("pretrain", "finetune"):
            patch.setattr(f"bertjax.training.{program}.measure_matmul_rate", lambda *_: 1e9)
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_pictures(request):
    """A quarter of a tiny run's time goes into its pictures; some modules look at them."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "LOOKS_AT_PICTURES", False):
            patch.setattr("bertjax.pictures.draw_picture", lambda path, make: [])
        yield


@pytest.fixture(scope="module", autouse=True)
def _known_rate_in_programs():
    """The same in programs that tests start, each of which measured for 2 s of processor time."""
    folder = Path(__file__).parent / "known_rate"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    Tokenizer(build_wordpiece(SPECIAL + WORDS, True, None)).save(folder / "tokenizer")
    splits = {
        name: make_columns(rows, seed)
        for seed, (name, rows) in enumerate({"train": ROWS, "validation": 5, "test": 3}.items())
    }
    write_rows(folder / "rows", splits, V, folder / "tokenizer")
    return folder / "rows"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def launch(prepared, cache):
    """Starts the program on the prepared rows; the processes share the compiled step."""

    def start(run, *options, data=prepared, devices=1):
        flags = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        )
        program = [sys.executable, "-m", "train.pretrain"]
        return start_program(
            [*program, *make_arguments(data, run, *options)], cache, XLA_FLAGS=flags
        )

    return start


@pytest.fixture(scope="module")
def here(known_rate):
    """One device, for runs in this process."""
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """60 documents of Python's documentation, a line that is in all of them, and duplicates."""
    from pydoc_data.topics import topics

    texts = [" ".join(topics[name].split())[:3000] for name in sorted(topics)]
    texts = list(dict.fromkeys(texts))[:60]
    documents = [f"Skip to the main content\n{text}" for text in texts]
    documents += [documents[3], documents[5] + " And so on and on.", "short"]
    path = tmp_path_factory.mktemp("text") / "documents.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(corpus) -> Path:
    directory = corpus.parent / "tokenizer"
    made = train_tokenizer(corpus.read_text().split("\n"), VocabularyConfig(vocab_size=700))
    made.save(directory)
    return directory


@pytest.fixture
def search(tmp_path, monkeypatch):
    """The same sweep in this process; its exit code."""
    (tmp_path / "fake_program.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(WAY)]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        PROGRAMS, "finetune", Program(["-m", "fake_program"], "fake_program", "FakeConfig")
    )
    monkeypatch.setattr("bertjax.sweeps.sweep._write_provenance", lambda *_: None)
    monkeypatch.delitem(sys.modules, "fake_program", raising=False)

    def run(output="sweep", space=SPACE, figures=False, **fields):
        if not figures:
            monkeypatch.setattr("bertjax.sweeps.report.draw_figures", lambda *_: [])
        defaults = {"score": "accuracy", "sampler": "random", "fixed": {"pause": 0.0}}
        content = {**defaults, "space": space, "output": str(tmp_path / output), **fields}
        return sweep(SweepConfig(**content))

    return run
