"""The notebooks of docs/: they hold no outputs, use the face alone, and run from end to end."""

import ast
import json
import os
from pathlib import Path

import pytest

import bertjax

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
# Seconds for a cell.
_LONGEST = 300


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_both():
    assert [path.stem for path in NOTEBOOKS] == ["fit_and_trust_a_classifier", "take_minilm_apart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs(path):
    for cell in code_cells(path):
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_uses_public_names_alone(path):
    for cell in code_cells(path):
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom):
                assert not node.module.startswith("bertjax"), node.module
            elif isinstance(node, ast.Import):
                names = [name.name for name in node.names]
                assert not any(name.startswith("bertjax.") for name in names), names
            elif isinstance(node, ast.Attribute):
                assert node.attr.startswith("__") or node.attr[0] != "_", node.attr
                if isinstance(node.value, ast.Name) and node.value.id == "bertjax":
                    assert node.attr in bertjax.__all__


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The folder of a BERT to start from: a real one, or one that has seen little."""
    real = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights" / "bert_tiny_mlm"
    if real.is_dir():
        return real
    folder = tmp_path_factory.mktemp("start")
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].glob("*.md")]
    return bertjax.pretrain(
        texts,
        run=folder / "run",
        vocab_size=2000,
        preparation={"max_length": 128},
        size="tiny",
        steps=20,
    ).model_directory


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, start, tmp_path, monkeypatch):
    if not os.environ.get("REQUIRE_NOTEBOOKS"):
        pytest.importorskip("nbclient", reason="make test-notebooks installs what runs notebooks")
        pytest.importorskip("ipykernel", reason="make test-notebooks installs what runs notebooks")
    import nbclient
    import nbformat

    monkeypatch.setenv("BERTJAX_NOTEBOOK_MODEL", os.fspath(start))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook,
        timeout=_LONGEST,
        kernel_name="python3",
        resources={"metadata": {"path": tmp_path}},
    )
    client.execute()
    shown = json.dumps(notebook)
    assert "text/html" in shown
    assert "Warning" not in shown
    if kept := os.environ.get("NOTEBOOKS_EXECUTED"):
        nbformat.write(notebook, Path(kept) / path.name)
