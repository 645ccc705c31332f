"""`bertjax convert` of what torch and transformers wrote, and of pickles that would run code.

Skipped without torch and transformers.
"""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

torch = pytest.importorskip("torch", reason="torch is not installed (make test-parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.architectures import ARCHITECTURES  # noqa: E402
from bertjax.interop.conversion import convert  # noqa: E402
from bertjax.program.errors import UserError  # noqa: E402
from tests.interop.make_google_checkpoints import (  # noqa: E402
    DISCRIMINATOR,
    ELECTRA,
    FOLDER,
    GENERATOR,
)
from tests.parity.random_models import make_random_model  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "tiny_bert"
WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"


@pytest.fixture
def directory(tmp_path):
    """The tiny model without weights."""
    path = Path(shutil.copytree(TINY, tmp_path / "model"))
    (path / WEIGHTS).unlink()
    return path


def tensors_of(path=TINY):
    return {name: torch.tensor(value) for name, value in load_file(path / WEIGHTS).items()}


@pytest.mark.parametrize("is_archive", [True, False])
def test_pickled_weights_become_the_same_bytes(tmp_path, directory, is_archive):
    tensors = tensors_of()
    tensors["bert.embeddings.position_ids"] = torch.arange(17)[None]
    torch.save(tensors, directory / PICKLED, _use_new_zipfile_serialization=is_archive)
    result = convert(directory, tmp_path / "out").result
    assert (result["form"], result["written"]["stored_as"]) == ("pickled PyTorch", "float32")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (TINY / WEIGHTS).read_bytes()


def test_shards_of_pickled_bfloat16(tmp_path, directory):
    tensors = {name: tensor.bfloat16() for name, tensor in tensors_of().items()}
    places = {name: f"pytorch_model-{1 + (name < 'bert.enc'):05}-of-00002.bin" for name in tensors}
    for file in set(places.values()):
        part = {name: tensors[name] for name in tensors if places[name] == file}
        torch.save(part, directory / file)
    with pytest.raises(UserError, match=r"no pytorch_model\.bin and no pytorch_model\.bin\.index"):
        convert(directory, tmp_path / "out")
    (directory / f"{PICKLED}.index.json").write_text(json.dumps({"weight_map": places}))
    assert convert(directory, tmp_path / "out").result["written"]["stored_as"] == "bfloat16"
    for name, value in load_file(tmp_path / "out" / WEIGHTS).items():
        assert value.tobytes() == tensors[name].view(torch.int16).numpy().tobytes()
    (directory / file).unlink()
    with pytest.raises(UserError, match=f"{file}: missing, though {PICKLED}.index.json lists it"):
        convert(directory, tmp_path / "other")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_class_is_converted_from_pickled_weights(tmp_path, directory, name):
    config, _ = make_random_model(name)
    values = {"architectures": [name], **config.to_dict()}
    (directory / "config.json").write_text(json.dumps(values))
    kind = getattr(transformers, name)
    theirs = kind(transformers.AutoConfig.from_pretrained(directory))
    torch.save(theirs.state_dict(), directory / PICKLED)
    assert convert(directory, tmp_path / "out").result["written"]["architecture"] == name
    ours, info = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    expected, state = theirs.state_dict(), ours.state_dict()
    assert state.keys() == expected.keys()
    for tensor, value in state.items():
        np.testing.assert_array_equal(value, expected[tensor], err_msg=tensor)


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["bare pickle", "archive", "legacy", "beside the tensors"])
def test_code_in_a_pickle_is_not_run(tmp_path, directory, bertjax_command, kind):
    payload, ran = Payload(f"touch {tmp_path / 'ran'}"), tmp_path / "ran"
    if kind == "bare pickle":
        (directory / PICKLED).write_bytes(pickle.dumps(payload))
    else:
        content = {**tensors_of(), "extra": payload} if "beside" in kind else payload
        archive = kind != "legacy"
        torch.save(content, directory / PICKLED, _use_new_zipfile_serialization=archive)
    line = ["convert", "--model", directory, "--output", tmp_path / "out"]
    code, out, err = bertjax_command(*line)
    assert (code, out) == (2, "")
    assert "holds more than tensors, which is not run and not read" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    assert not ran.exists()
    pickle.loads(pickle.dumps(payload))  # the payload does run elsewhere
    assert ran.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds something else than tensors by their names"),
        ({"state_dict": {"a": torch.zeros(2)}}, "holds something else than tensors by their names"),
        ({"a": torch.zeros(1).expand(10**12)}, "has more numbers than the file"),
        ({"a": torch.zeros(3, 3).to_sparse()}, "is sparse or quantised"),
        ({"a": torch.zeros(3).to(torch.float8_e4m3fn)}, "is stored as torch.float8_e4m3fn"),
        ({"a": torch.zeros(3, dtype=torch.complex64)}, "is stored as complex64"),
    ],
)
def test_other_contents_are_refused(tmp_path, directory, content, message):
    torch.save(content, directory / PICKLED)
    with pytest.raises(UserError, match=message):
        convert(directory, tmp_path / "out")


def test_damaged_archives_are_refused(tmp_path, directory):
    torch.save(tensors_of(), directory / PICKLED)
    whole = (directory / PICKLED).read_bytes()
    for content in (whole[:-100], whole[:50_000], b"", b"\x80\x02", whole[:4]):
        (directory / PICKLED).write_bytes(content)
        with pytest.raises(UserError, match=r"pytorch_model\.bin: damaged, or holds more"):
            convert(directory, tmp_path / "out")
    # One whose bytes stand for many more: torch maps an archive only if nothing in it is packed.
    with zipfile.ZipFile(directory / PICKLED, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(10**6))
    with pytest.raises(UserError, match="damaged, or holds more"):
        convert(directory, tmp_path / "out")


@pytest.mark.parametrize(
    ("folder", "config", "name"),
    [
        (FOLDER, None, "BertForPreTraining"),
        (ELECTRA, DISCRIMINATOR, "ElectraForPreTraining"),
        (ELECTRA, GENERATOR, "ElectraForMaskedLM"),
    ],
)
def test_transformers_loads_what_was_googles(tmp_path, folder, config, name):
    folder = Path(shutil.copytree(folder, tmp_path / "google"))
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "out", name)
    model, info = getattr(transformers, name).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(info.values()), info
    state = model.state_dict()
    for tensor, value in load_file(tmp_path / "out" / WEIGHTS).items():
        np.testing.assert_array_equal(state[tensor].numpy(), value, err_msg=tensor)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("ab c")["input_ids"] == [2, 1, 7, 3]
