"""What a stranger does with the wheel: install it in a bare environment, make a BERT, serve it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.dockerfile import instructions_of

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
ALONE = {**os.environ, "PYTHONPATH": "", "JAX_PLATFORMS": "cpu"}

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


def run(*words, folder):
    """Runs a program that sees nothing of this checkout; returns what it prints."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=ALONE,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_bert(program, folder):
    """Makes a BERT in `run/model` of a folder, from words."""
    words = ["dog", "cat", "bird"]
    lines = [f"the {a} sees the {b} . the {b} hears a {a} ." for a in words for b in words]
    (folder / "texts.txt").write_text("\n\n".join(lines * 12) + "\n")
    size = ["--vocab-size", 47, "--minimum-frequency", 1]
    text = ["--input", "texts.txt"]
    run(program, "tokenizer", *text, "--output", "tokenizer", *size, folder=folder)
    rows = ["--tokenizer", "tokenizer", "--output", "rows", "--max-length", 16]
    run(program, "prepare", *text, *rows, folder=folder)
    shape = ["--model.size", "tiny", "--model.hidden-size", 32, "--batch-size", 4]
    steps = ["--budget.steps", 30]
    run(program, "pretrain", "--data", "rows", "--run", "run", *shape, *steps, folder=folder)


def test_bert_is_made_and_fitted_in_a_bare_environment(bare, tmp_path):
    make_bert(bare / "bertjax", tmp_path)
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    told = run(bare / "python", "notebook.py", folder=tmp_path)
    assert told.splitlines()[-1] in ("good", "bad")


# The user and the folder of the image are the machine's; everything else is run as it stands.
OF_THE_MACHINE = """
useradd() { :; }
install() { mkdir -p "${@: -1}"; }
"""


def test_image_is_made_serves_and_stops_as_its_file_says(wheel, tmp_path):
    """The instructions of deploy/Dockerfile, one by one, in an environment of their own."""
    image = instructions_of(ROOT / "deploy" / "Dockerfile")[-1]
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    shutil.copy(wheel, wheels)
    shutil.copy(ROOT / "constraints.txt", wheels)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv" / "bin"
    own = {"/wheels": str(wheels), "/cache": str(tmp_path / "cache")}
    there = ALONE | {"PATH": f"{programs}:{os.environ['PATH']}"}
    there.pop("JAX_COMPILATION_CACHE_DIR", None)  # the suite's
    (steps,) = image["RUN"]
    for place, ours in own.items():
        steps = steps.replace(place, ours)
    installing = {**there, "PIP_QUIET": "1"}
    subprocess.run(["bash", "-c", OF_THE_MACHINE + steps], env=installing, check=True)
    assert not wheels.exists()

    make_bert(programs / "bertjax", tmp_path)
    for name, value in re.findall(r"(\w+)=(\S+)", image["ENV"][0]):
        there[name] = own.get(value, value)
    words = [*json.loads(image["ENTRYPOINT"][0]), *json.loads(image["CMD"][0])]
    here = {"0.0.0.0": "127.0.0.1", "/model": str(tmp_path / "run" / "model")}
    command = [here.get(word, word) for word in words] + ["--port", "0", "--no-explain"]
    told = tmp_path / "told.txt"
    with told.open("w") as file:  # which takes all that the server says of every call
        server = subprocess.Popen(command, cwd=tmp_path, env=there, stderr=file)
    try:
        said = _wait_for(server, lambda: re.search(r"http://127.0.0.1:\d+", told.read_text()))
        address = said[0]
        check = json.loads(image["HEALTHCHECK"][0].partition("CMD ")[2])
        check[-1] = check[-1].replace("http://127.0.0.1:3000", address)
        _wait_for(
            server, lambda: not subprocess.run(check, env=there, capture_output=True).returncode
        )
        asked = urllib.request.Request(
            f"{address}/fill-mask",
            json.dumps({"inputs": "the dog [MASK] the cat ."}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(asked) as answer:
            assert json.load(answer)[0]["token_str"]
        assert list((tmp_path / "cache").rglob("*"))
        server.send_signal(getattr(signal, image["STOPSIGNAL"][0]))
        assert server.wait(timeout=60) == 0, told.read_text()
    finally:
        server.kill()


def _wait_for(process, find):
    deadline = time.monotonic() + 300
    while not (found := find()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found
