"""What a stranger does with the wheel: install it in a bare environment, make a BERT there."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

# The way through the face of the library, from a model directory to a fitted model and back.
NOTEBOOK = """
import sys

import bertjax

assert "jax" not in sys.modules
m = bertjax.load("run/model")
print(m.fill_mask(["the dog [MASK] the cat ."], top_k=3)[0].filled)
t = m.trace(["the dog sees the cat ."])[0]
print(t.tokens, t.probs.shape)
cut = m.trace(["the dog sees the cat ."], without_heads="0-1,1-0")[0]
assert not cut.context[0, :, 1].any() and (cut.hidden[-1] != t.hidden[-1]).any()
rows = [{"text": f"a {w} bird", "label": w} for w in ("good", "bad")] * 20
r = bertjax.finetune(m, "classification", train=rows, epochs=3, max_length=16)
print(r.scores)
print(r.model.predict(["a good bird", "a bad bird"])[0].label, r.model.embed(["a bird"]).shape)
r.model.save("mine")
print(bertjax.load("mine").predict(["a bad bird"])[0].label)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the checkout, so that nothing is left in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = ("bertjax", "train", "pyproject.toml", "README.md", "LICENSE")
    source.mkdir()
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source]
    subprocess.run(build, check=True)
    (path,) = folder.glob("bertjax-*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """The folder of programs of an environment that has the wheel and what it asks for alone."""
    place = tmp_path_factory.mktemp("bare") / "venv"
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("no uv in this environment; make install puts it there")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, place], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", place / "bin" / "python"]
    constraints = ["--constraint", ROOT / "constraints.txt"]
    subprocess.run([*install, *constraints, f"{wheel}[tasks]"], check=True)
    return place / "bin"


def test_wheel_holds_the_library_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in names} == {
        "bertjax"
    }
    pages = {"bertjax/analysis/report/page/report.css", "bertjax/serving/page/page.js"}
    assert {"bertjax/py.typed", *pages} <= set(names)


def test_bert_is_made_and_fitted_in_a_bare_environment(bare, tmp_path):
    environment = {**os.environ, "PYTHONPATH": "", "JAX_PLATFORMS": "cpu"}

    def run(*words):
        command = [str(word) for word in words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    words = ["dog", "cat", "bird"]
    lines = [f"the {a} sees the {b} . the {b} hears a {a} ." for a in words for b in words]
    (tmp_path / "texts.txt").write_text("\n\n".join(lines * 12) + "\n")
    program = bare / "bertjax"
    size = ["--vocab-size", 47, "--minimum-frequency", 1]
    run(program, "tokenizer", "--input", "texts.txt", "--output", "tokenizer", *size)
    rows = ["--tokenizer", "tokenizer", "--output", "rows", "--max-length", 16]
    run(program, "prepare", "--input", "texts.txt", *rows)
    shape = ["--model.size", "tiny", "--model.hidden-size", 32, "--batch-size", 4]
    run(program, "pretrain", "--data", "rows", "--run", "run", *shape, "--budget.steps", 30)
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    told = run(bare / "python", "notebook.py")
    assert told.splitlines()[-1] in ("good", "bad")
