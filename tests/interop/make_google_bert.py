"""Makes tests/interop/google_bert: a tiny BERT that Google's program and TensorFlow wrote.

    pip install tensorflow-cpu==2.21.0
    git clone https://github.com/google-research/bert
    python tests/interop/make_google_bert.py bert

The body is built and run by google-research/bert's modeling.py. Two functions of TensorFlow that
it calls are gone since, and are written out here; the heads are those of run_pretraining.py, and
the optimizer's slots those of optimization.py, by their names.
"""

import json
import sys
import types
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "google_bert"
TOKEN_IDS = [[2, 9, 17, 30, 3, 36, 3], [2, 8, 25, 3, 0, 0, 0]]
TOKEN_TYPE_IDS = [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0]]
REAL = [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]]
CONFIG = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 8, "initializer_range": 0.02, "intermediate_size": 13,
    "max_position_embeddings": 17, "num_attention_heads": 2, "num_hidden_layers": 3,
    "type_vocab_size": 2, "vocab_size": 37,
}  # fmt: skip
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz012345"]


def value_of(name, shape):
    """Returns the values of a variable: multiples of 2**-12 in [-0.5, 0.5), by its name."""
    numbers = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))
    mixed = (numbers * np.uint64(2654435761)) >> np.uint64(7)
    value = (mixed % np.uint64(4096)).astype(np.float32) / 4096 - 0.5
    return (value + name.endswith("/gamma")).astype(np.float32).reshape(shape)


def main(google):
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    tf.layers = types.SimpleNamespace(dense=dense)
    tf.contrib = types.SimpleNamespace(layers=types.SimpleNamespace(layer_norm=layer_norm))
    sys.modules["tensorflow"] = tf
    sys.path.insert(0, google)
    import modeling

    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "bert_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (FOLDER / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    size, vocab = CONFIG["hidden_size"], CONFIG["vocab_size"]
    model = modeling.BertModel(
        modeling.BertConfig.from_dict(CONFIG), False, tf.constant(TOKEN_IDS), tf.constant(REAL),
        tf.constant(TOKEN_TYPE_IDS),
    )  # fmt: skip
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
    learned = tf.global_variables()
    for variable in learned:
        for slot in ("adam_m", "adam_v"):
            tf.get_variable(f"{variable.name.split(':')[0]}/{slot}", variable.shape)
    tf.train.get_or_create_global_step()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for variable in learned:
            name = variable.name.split(":")[0]
            variable.load(value_of(name, variable.shape.as_list()), session)
        hidden = session.run([*model.get_all_encoder_layers(), model.get_pooled_output()])
        prefix = str(FOLDER / "bert_model.ckpt")
        tf.train.Saver().save(session, prefix, write_meta_graph=False, write_state=False)
    np.savez_compressed(FOLDER / "outputs.npz", hidden=np.stack(hidden[:-1]), pooled=hidden[-1])


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
    main(sys.argv[1])
