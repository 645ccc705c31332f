"""Real checkpoints go in, out and in again, and every tensor is the same to the byte."""

import hashlib

from safetensors import safe_open

from bertjax.config import BertConfig
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.interop.tensor_names import current_name


def hash_tensors(directory):
    """sha256 of each tensor's type, shape and bytes, by the name that is in use today."""
    hashes = {}
    with safe_open(directory / "model.safetensors", "np") as opened:
        for stored in opened.keys():  # noqa: SIM118 - not a mapping
            name, tensor = current_name(stored, BertConfig()), opened.get_tensor(stored)
            if name is not None:
                what = f"{tensor.dtype} {tensor.shape} ".encode() + tensor.tobytes()
                hashes[name] = hashlib.sha256(what).hexdigest()
    return hashes


def test_tensors_go_in_and_out_to_the_byte(checkpoint, tmp_path):
    loaded = load_model_directory(checkpoint)
    out, again = tmp_path / "out", tmp_path / "again"
    save_model_directory(out, loaded.config, loaded.params, checkpoint, loaded.architecture)
    assert hash_tensors(out) == hash_tensors(checkpoint)
    second = load_model_directory(out)
    assert (second.config, second.architecture) == (loaded.config, loaded.architecture)
    save_model_directory(again, second.config, second.params, out, second.architecture)
    for file in out.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name
