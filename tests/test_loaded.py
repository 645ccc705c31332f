"""A model ready for use: from a directory or the hub, on its devices once, as any class."""

import json
import shutil

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.architectures import ARCHITECTURES
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.interop.tensor_names import flatten
from bertjax.loaded import load
from bertjax.program.errors import UserError
from bertjax.training.sharding import MeshConfig, make_mesh
from tests.families.tiny import BERT_CLASSES
from tests.interop.test_hub import TINY
from tests.parity.random_models import draw_parameters


def save(folder, name):
    config = load_model_directory(TINY).config
    path = folder / name
    save_model_directory(path, config, draw_parameters(config, name), TINY, name)
    return path


@pytest.fixture(scope="module")
def tiny():
    return load(TINY)


def test_model_is_its_checkpoint_on_the_device(tiny, capfd):
    loaded = load_model_directory(TINY)
    assert tiny.architecture == "BertForPreTraining"
    assert (tiny.config, tiny.directory, tiny.notes, tiny.mesh) == (loaded.config, TINY, (), None)
    ours, theirs = dict(flatten(tiny.params)), dict(flatten(loaded.params))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert isinstance(value, jax.Array)
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert (tiny.module.dtype, tiny.module.attention) == (jnp.float32, "auto")
    assert repr(tiny) == (
        f"Model(BertForPreTraining, 5 layers of 4 heads, hidden_size 24, 0.0 M parameters, {TINY})"
    )
    load(TINY)
    assert capfd.readouterr() == ("", "")  # nothing is printed


@pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM", "BertForNextSentencePrediction"])
def test_views_share_the_arrays_and_lead_back(tiny, name):
    view = tiny.as_architecture(name)
    assert type(view.module) is ARCHITECTURES[name].module
    mine = {id(leaf) for leaf in jax.tree.leaves(tiny.params)}
    theirs = {id(leaf) for leaf in jax.tree.leaves((view.params, view.spare))}
    assert theirs == mine
    module = view.module
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    assert jax.tree.structure(shapes) == jax.tree.structure(view.params)
    back = view.as_architecture("BertForPreTraining")
    assert jax.tree.map(id, back.params) == jax.tree.map(id, tiny.params)
    assert (back.module, back.spare) == (tiny.module, {})


def test_only_a_change_of_the_model_itself_is_one(tiny):
    """Its files are still its own where it is seen as another class."""
    assert not tiny.is_changed
    assert not tiny.as_architecture("body").is_changed
    assert not tiny.replace(notes=()).is_changed
    assert tiny.replace(params=tiny.params).replace(notes=()).is_changed
    assert tiny.replace(config=tiny.config).as_architecture("body").is_changed


def test_apply_is_pure(tiny):
    token_ids = jnp.array([[2, 7, 8, 9, 3], [2, 8, 9, 3, 0], [2, 9, 3, 0, 0]])

    @jax.jit
    def logits(params, token_ids):
        return tiny.module.apply({"params": params}, token_ids).mlm_logits

    @jax.jit
    def one_by_one(params, token_ids):
        def total(params, row):
            found = logits(params, row[None])[0]
            return found.sum(), found

        return jax.vmap(jax.grad(total, has_aux=True), (None, 0))(params, token_ids)

    gradients, found = one_by_one(tiny.params, token_ids)
    np.testing.assert_allclose(found, logits(tiny.params, token_ids), atol=1e-4)
    assert jax.tree.structure(gradients) == jax.tree.structure(tiny.params)
    np.testing.assert_allclose(gradients["mlm_head"]["bias"], np.full((3, 99), 5.0))


@pytest.mark.parametrize("name", BERT_CLASSES)
def test_every_class_is_loaded_as_itself_and_as_a_body(tmp_path, name):
    path = save(tmp_path, name)
    model, expected = load(path), load_model_directory(path).params
    expected = expected["bert"] if name == "BertModel" else expected
    assert model.architecture == name
    assert jax.tree.structure(model.params) == jax.tree.structure(expected)
    body = load(path, "BertModel")
    assert (
        body.module.pooling == ("pooler" in body.params) == ("pooler" in ARCHITECTURES[name].parts)
    )
    with pytest.raises(UserError, match=f"{path}: is a {name} and has no .*_head"):
        load(
            path,
            "BertForQuestionAnswering" if name != "BertForQuestionAnswering" else "BertForMaskedLM",
        )


def test_class_that_is_asked_needs_its_own_parts_alone(tmp_path):
    path = shutil.copytree(save(tmp_path, "BertForMaskedLM"), tmp_path / "claims more")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(
        json.dumps(config | {"architectures": ["BertForPreTraining"]})
    )
    assert load(path, "BertForMaskedLM").architecture == "BertForMaskedLM"
    assert load(path, "BertModel").spare.keys() == {"mlm_head"}
    with pytest.raises(
        UserError, match="is a BertForPreTraining and has no nsp_head and no pooler"
    ):
        load(path)


def test_what_is_wrong_is_said(tiny, tmp_path):
    with pytest.raises(UserError, match="the model has no name"):
        load(" ")
    with pytest.raises(UserError, match="methods is empty; name at least one of"):
        tiny.explain("[MASK] was it", methods=[])
    with pytest.raises(
        UserError, match=r"'BertForMaskedLm' is not one of .*mean 'BertForMaskedLM'"
    ):
        tiny.as_architecture("BertForMaskedLm")
    with pytest.raises(UserError, match="dtype='double' is not one of auto, float32, bfloat16"):
        load(TINY, dtype="double")
    with pytest.raises(UserError, match="mesh='data' is not a mesh; make one with"):
        load(TINY, mesh="data")
    with pytest.raises(UserError, match=r"mesh has the axes \('rows',\)"):
        load(TINY, mesh=jax.make_mesh((8,), ("rows",)))
    with pytest.raises(UserError, match="pooling=3 is not one of cls, max, mean"):
        tiny.embed("a", pooling=3)
    with pytest.raises(UserError, match=r"^top 0: at least one context is shown"):
        tiny.contexts("a cat", "cat", ["a cat"], top=0)
    with pytest.raises(UserError, match="3 tokens, more than the 0 that are allowed"):
        tiny.trace("a", max_length=0)
    with pytest.raises(UserError, match="attention='fast' is not one of auto, explicit"):
        load(TINY, attention="fast")
    with pytest.raises(UserError, match="attention=splash runs on tpu, not on cpu"):
        load(TINY, attention="splash")
    with pytest.raises(UserError, match=r"no such directory; .* hub, ORGANISATION/NAME"):
        load(tmp_path / "nowhere")
    body = tiny.as_architecture("BertModel").replace(directory=None, spare={})
    with pytest.raises(UserError, match="the model: is a BertModel and has no mlm_head"):
        body.as_architecture("BertForMaskedLM")


def test_dtype_and_attention_are_those_asked_for(tiny):
    model = load(TINY, "BertModel", dtype="bfloat16", attention="xla")
    assert (model.module.dtype, model.module.attention) == (jnp.bfloat16, "xla")
    assert model.params["embeddings"]["word_embeddings"].dtype == jnp.float32
    token_ids = jnp.array([[2, 7, 8, 9, 3]])
    exact = tiny.as_architecture("BertModel")
    narrow, wide = (
        jax.jit(one.module.apply)({"params": one.params}, token_ids).hidden
        for one in (model, exact)
    )
    assert 0 < jnp.abs(narrow - wide).max() < 0.2


def test_auto_tells_that_a_gpu_computes_in_bfloat16(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    model = load(TINY)
    assert model.module.dtype == jnp.bfloat16
    assert model.notes == (
        "matrix products are computed in bfloat16 on this gpu; dtype float32 is slower and exact",
    )
    assert load(TINY, dtype="bfloat16").notes == ()  # it was asked for


def test_parameters_are_divided_over_a_mesh(tiny):
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    model = load(TINY, mesh=mesh)
    assert model.mesh is mesh
    words = model.params["bert"]["embeddings"]["word_embeddings"]
    assert len(words.sharding.device_set) == 8
    kernel = model.params["bert"]["encoder"]["layers"]["intermediate"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size / 4
    with jax.set_mesh(mesh):
        logits = jax.jit(model.module.apply)({"params": model.params}, jnp.full((8, 5), 7))
    expected = jax.jit(tiny.module.apply)({"params": tiny.params}, jnp.full((8, 5), 7))
    np.testing.assert_allclose(logits.mlm_logits, expected.mlm_logits, atol=1e-4)


def test_directory_of_sentence_transformers_has_its_model_inside(tmp_path):
    folder = tmp_path / "vectors"
    shutil.copytree(save(tmp_path, "BertModel"), folder / "0_Transformer")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": number, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    model = load(folder)
    assert (model.directory, model.architecture) == (folder, "BertModel")


def test_name_of_the_hub_is_loaded_from_its_cache(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []

    def download(repo, *, revision, **patterns):
        asked.append((repo, revision))
        return str(TINY)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = load("org/tiny@v1", "BertForMaskedLM")
    assert (asked, model.directory) == ([("org/tiny", "v1")], TINY)


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.fill_mask("a [MASK]"),
        lambda model: model.embed("a cat"),
        lambda model: model.evaluate(["the dog sees a bird ."]),
    ],
    ids=["fill_mask", "embed", "evaluate"],
)
def test_answers_of_weights_that_are_no_numbers_are_refused(tiny, ask):
    spoiled = tiny.replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, tiny.params))
    with pytest.raises(UserError, match="the model's output is not finite; `bertjax verify` it"):
        ask(spoiled)
