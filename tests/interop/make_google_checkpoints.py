"""Makes google_bert and google_electra: tiny models that Google's programs and TensorFlow wrote.

    pip install tensorflow-cpu==2.21.0
    git clone https://github.com/google-research/bert
    git clone https://github.com/google-research/electra
    python tests/interop/make_google_checkpoints.py bert electra

The bodies are built and run by their modeling.py. Two functions of TensorFlow that these call are
gone since, and are written out here; the heads are those of run_pretraining.py, and the slots those
of optimization.py, by their names.
"""

import importlib.util
import json
import sys
import types
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "google_bert"
ELECTRA = FOLDER.with_name("google_electra")
TOKEN_IDS = [[2, 9, 17, 30, 3, 36, 3], [2, 8, 25, 3, 0, 0, 0]]
TOKEN_TYPE_IDS = [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0]]
REAL = [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]]
CONFIG = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 8, "initializer_range": 0.02, "intermediate_size": 13,
    "max_position_embeddings": 17, "num_attention_heads": 2, "num_hidden_layers": 3,
    "type_vocab_size": 2, "vocab_size": 37,
}  # fmt: skip
# ELECTRA's releases have no config; these are of Hugging Face's directories of the same models.
EMBEDDING_SIZE = 6
DISCRIMINATOR = {"model_type": "electra", "embedding_size": EMBEDDING_SIZE, **CONFIG}
GENERATOR = {**DISCRIMINATOR, "hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 11}
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz012345"]


def value_of(name, shape):
    """Returns the values of a variable: multiples of 2**-12 in [-0.5, 0.5), by its name."""
    numbers = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))
    mixed = (numbers * np.uint64(2654435761)) >> np.uint64(7)
    value = (mixed % np.uint64(4096)).astype(np.float32) / 4096 - 0.5
    return (value + name.endswith("/gamma")).astype(np.float32).reshape(shape)


def main(bert, electra):
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    tf.layers = types.SimpleNamespace(dense=dense)
    tf.compat.v1 = tf
    tf.contrib = types.ModuleType("tensorflow.contrib")
    tf.contrib.layers = types.SimpleNamespace(layer_norm=layer_norm)
    sys.modules |= {"tensorflow": tf, "tensorflow.compat.v1": tf, "tensorflow.contrib": tf.contrib}
    with tf.Graph().as_default():
        make_bert(tf, load(bert, "modeling.py"))
    with tf.Graph().as_default():
        make_electra(tf, load(electra, "model/modeling.py"))


def load(folder, file):
    """The module of a program's modeling.py."""
    spec = importlib.util.spec_from_file_location("modeling", Path(folder) / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs(tf):
    """Token ids, what is no padding, and token types."""
    return [tf.constant(ids) for ids in (TOKEN_IDS, REAL, TOKEN_TYPE_IDS)]


def make_bert(tf, modeling):
    size, vocab = CONFIG["hidden_size"], CONFIG["vocab_size"]
    model = modeling.BertModel(modeling.BertConfig.from_dict(CONFIG), False, *inputs(tf))
    for name, shape in {
        "cls/predictions/transform/dense/kernel": [size, size],
        "cls/predictions/transform/dense/bias": [size],
        "cls/predictions/transform/LayerNorm/beta": [size],
        "cls/predictions/transform/LayerNorm/gamma": [size],
        "cls/predictions/output_bias": [vocab],
        "cls/seq_relationship/output_weights": [2, size],
        "cls/seq_relationship/output_bias": [2],
    }.items():
        tf.get_variable(name, shape)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "bert_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    pooled = model.get_pooled_output()
    save(tf, FOLDER / "bert_model.ckpt", hidden=model.get_all_encoder_layers(), pooled=pooled)


def make_electra(tf, modeling):
    size, vocab = CONFIG["hidden_size"], CONFIG["vocab_size"]
    generator = modeling.BertModel(
        modeling.BertConfig.from_dict(GENERATOR), False, *inputs(tf), scope="generator",
        embedding_size=EMBEDDING_SIZE,
    )  # fmt: skip
    model = modeling.BertModel(
        modeling.BertConfig.from_dict(DISCRIMINATOR), False, *inputs(tf),
        embedding_size=EMBEDDING_SIZE,
    )  # fmt: skip
    for name, shape in {
        "generator_predictions/dense/kernel": [GENERATOR["hidden_size"], EMBEDDING_SIZE],
        "generator_predictions/dense/bias": [EMBEDDING_SIZE],
        "generator_predictions/LayerNorm/beta": [EMBEDDING_SIZE],
        "generator_predictions/LayerNorm/gamma": [EMBEDDING_SIZE],
        "generator_predictions/output_bias": [vocab],
        "discriminator_predictions/dense/kernel": [size, size],
        "discriminator_predictions/dense/bias": [size],
        "discriminator_predictions/dense_1/kernel": [size, 1],
        "discriminator_predictions/dense_1/bias": [1],
    }.items():
        tf.get_variable(name, shape)
    ELECTRA.mkdir(exist_ok=True)
    save(
        tf, ELECTRA / "electra_tiny", hidden=model.all_layer_outputs,
        generator_hidden=generator.all_layer_outputs,
    )  # fmt: skip


def save(tf, prefix, **outputs):
    """Saves checkpoint, vocabulary and what is computed, with the values of `value_of`."""
    learned = tf.global_variables()
    for variable in learned:
        for slot in ("adam_m", "adam_v"):
            name = f"{variable.name.split(':')[0]}/{slot}"
            tf.get_variable(name, variable.shape, initializer=tf.zeros_initializer())
    tf.train.get_or_create_global_step()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for variable in learned:
            name = variable.name.split(":")[0]
            variable.load(value_of(name, variable.shape.as_list()), session)
        computed = session.run(outputs)
        saver = tf.train.Saver()
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)
    np.savez_compressed(prefix.with_name("outputs.npz"), **computed)
    prefix.with_name("vocab.txt").write_text("\n".join(TOKENS) + "\n")


def dense(inputs, units, activation=None, name=None, kernel_initializer=None):
    """As `tf.layers.dense` of a matrix."""
    import tensorflow as tf

    with tf.variable_scope(name, default_name="dense"):
        kernel = tf.get_variable("kernel", [inputs.shape[-1], units])
        outputs = tf.matmul(inputs, kernel) + tf.get_variable("bias", [units])
    return outputs if activation is None else activation(outputs)


def layer_norm(inputs, begin_norm_axis, begin_params_axis, scope):
    """As `tf.contrib.layers.layer_norm` over the last axis."""
    import tensorflow as tf

    with tf.variable_scope(scope, default_name="LayerNorm"):
        beta, gamma = (tf.get_variable(name, [inputs.shape[-1]]) for name in ("beta", "gamma"))
    mean, variance = tf.nn.moments(inputs, [-1], keepdims=True)
    return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, 1e-12)


if __name__ == "__main__":
    main(*sys.argv[1:])
