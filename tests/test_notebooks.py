"""The notebooks of docs/: kept with the outputs of their code, which use the face alone and run."""

import ast
import hashlib
import json
import os
import re
from pathlib import Path

import pytest

import bertjax

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted([*DOCS.glob("notebooks/*.ipynb"), *DOCS.glob("es/*.ipynb")])
# Those whose subject is what is inside bertjax, and that import it.
READ_INSIDE = {"read_the_model"}
# Those that show pictures, and no tables or maps.
SHOW_PICTURES = {"read_the_model", "patching_and_ablation", "many_devices_on_one_cpu"}
# Those that are kept as executed with all-MiniLM-L6-v2.
OF_MINILM = ("fit_and_trust_a_classifier", "take_minilm_apart")
# In Spanish: the same code with the same outputs between other words.
TRANSLATED = {
    DOCS / "notebooks" / "a_first_bert_in_ten_minutes.ipynb": DOCS
    / "es"
    / "un_primer_bert_en_diez_minutos.ipynb"
}
# Seconds for a cell.
_LONGEST = 300


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def digest(cells):
    """What the outputs of a notebook depend on: its code."""
    code = ["".join(cell["source"]) for cell in cells]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def test_there_are_all():
    assert {path.stem for path in NOTEBOOKS} == {
        "a_first_bert_in_ten_minutes",
        "fit_and_trust_a_classifier",
        "many_devices_on_one_cpu",
        "patching_and_ablation",
        "read_the_model",
        "take_minilm_apart",
        "un_primer_bert_en_diez_minutos",
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_with_the_outputs_of_its_code(path):
    """Executed once, from the first cell to the last, as it stands; `make notebooks` does."""
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert {json.dumps(cell["metadata"]) for cell in cells} == {"{}"}
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert not [out for cell in cells for out in cell["outputs"] if out.get("name") == "stderr"]
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert metadata["executed_code"] == digest(cells), "changed since: make notebooks"
    assert not re.search(r"/(root|home|work|Users)/", json.dumps(cells))


@pytest.mark.parametrize("name", OF_MINILM)
def test_notebook_of_minilm_is_kept_as_executed_with_it(name):
    outputs = [cell["outputs"] for cell in code_cells(DOCS / "notebooks" / f"{name}.ipynb")]
    assert "6 layers of 12 heads, hidden_size 384" in json.dumps(outputs)


@pytest.mark.parametrize(("english", "spanish"), TRANSLATED.items())
def test_translated_notebook_has_the_same_cells(english, spanish):
    assert code_cells(spanish) == code_cells(english)
    kinds = [
        [cell["cell_type"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        for path in (english, spanish)
    ]
    assert kinds[0] == kinds[1]


def test_lines_that_are_quoted_are_still_there():
    """`quote` of read_the_model prints a file, and lines of it."""
    source, quoted = "", 0
    for cell in code_cells(DOCS / "notebooks" / "read_the_model.ipynb"):
        for output in cell["outputs"]:
            for line in "".join(output.get("text", [])).splitlines():
                if re.fullmatch(r"bertjax/[\w/]+\.py", line):
                    source = (DOCS.parent / line).read_text(encoding="utf-8")
                elif line.startswith("    ") and source:
                    assert f" {line.strip()}\n" in source
                    quoted += 1
                else:
                    source = ""
    assert quoted > 20


@pytest.mark.parametrize(
    "path",
    [path for path in NOTEBOOKS if path.stem not in READ_INSIDE],
    ids=lambda path: path.stem,
)
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
    """The folder of a BERT to start from: as it is named, a real one, or one that saw little."""
    if named := os.environ.get("BERTJAX_NOTEBOOK_MODEL"):
        return Path(named)
    real = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights" / "bert_tiny_mlm"
    if real.is_dir():
        return real
    folder = tmp_path_factory.mktemp("start")
    texts = [path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))]
    return bertjax.pretrain(
        texts,
        run=folder / "run",
        vocab_size=2000,
        preparation={"max_length": 128},
        size="tiny",
        steps=20,
    ).model_directory


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [path for path in NOTEBOOKS if path not in TRANSLATED.values()],
    ids=lambda path: path.stem,
)
def test_notebook_runs(path, start, tmp_path, monkeypatch):
    if not os.environ.get("REQUIRE_NOTEBOOKS"):
        pytest.importorskip("nbclient", reason="make test-notebooks installs what runs notebooks")
        pytest.importorskip("ipykernel", reason="make test-notebooks installs what runs notebooks")
    import nbclient
    import nbformat

    monkeypatch.setenv("BERTJAX_NOTEBOOK_MODEL", os.fspath(start))
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook,
        timeout=None if os.environ.get("KEEP_NOTEBOOKS") else _LONGEST,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": tmp_path}},
    )
    client.execute()
    shown = json.dumps(notebook)
    assert ("image/png" if path.stem in SHOW_PICTURES else "text/html") in shown
    assert "Warning" not in shown
    if os.environ.get("KEEP_NOTEBOOKS"):
        keep(notebook, path, {os.fspath(tmp_path): "/tmp", os.fspath(start): start.name})


def keep(notebook, path, places):
    """Writes an executed notebook, without the places and the Python of this machine."""
    import nbformat

    text = json.dumps(notebook)
    for place, name in places.items():
        text = text.replace(json.dumps(place)[1:-1], name)
    kept = nbformat.from_dict(json.loads(text))
    kept.metadata["language_info"] = {"name": "python"}
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    kept.metadata["executed_code"] = digest(code)
    path.write_text(nbformat.writes(kept) + "\n", encoding="utf-8")
    if translated := TRANSLATED.get(path):
        other = nbformat.read(translated, as_version=4)
        places = (number for number, cell in enumerate(other.cells) if cell.cell_type == "code")
        for number, cell in zip(places, code, strict=True):
            other.cells[number] = cell
        other.metadata = kept.metadata
        translated.write_text(nbformat.writes(other) + "\n", encoding="utf-8")
