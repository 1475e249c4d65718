"""Programs: several inputs and outputs, classes of one's own, columns of words."""

import keras
import numpy as np
from keras import layers
from zoo.row import EXAMPLES, floats, whole, zoo

NUMBERS = {"x": floats(4), "y": floats(1), "loss": "mse"}
CLASSES = {
    "x": floats(4),
    "y": whole(3),
    "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
}


@keras.saving.register_keras_serializable("zoo")
class Plain(keras.Model):
    """Of the subclassing guide: `call` without `training`, built by `fit`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = layers.Dense(5, "relu"), layers.Dense(3)

    def call(self, x):
        return self.out(self.hidden(x))


@zoo(**CLASSES, everywhere=True)
def built_by_fit():
    return Plain()


@zoo(**CLASSES)
def built_by_a_call():
    model = Plain()
    model(np.zeros((2, 4), "float32"))
    return model


@keras.saving.register_keras_serializable("zoo")
class WithDropout(Plain):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = layers.Dropout(0.3)

    def call(self, x, training=False):
        return self.out(self.drop(self.hidden(x), training=training))


@zoo(**CLASSES, everywhere=True)
def call_with_training():
    return WithDropout()


@keras.saving.register_keras_serializable("zoo")
class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, sample_weight)


@zoo(**CLASSES)
def compute_loss_of_ones_own():
    inputs = keras.Input((4,))
    return OwnLoss(inputs, layers.Dense(3)(inputs))


@keras.saving.register_keras_serializable("zoo")
class Scaled(layers.Layer):
    """Weights of its own."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(shape[-1],), initializer="zeros", name="shift")

    def call(self, x):
        return x * self.scale + self.shift


@zoo(**CLASSES, everywhere=True)
def layer_of_ones_own():
    return keras.Sequential([keras.Input((4,)), layers.Dense(5), Scaled(), layers.Dense(3)])


@keras.saving.register_keras_serializable("zoo")
class Remembers(layers.Layer):
    """A number that neither its config nor its weights hold."""

    factor = 1.0

    def call(self, x):
        return self.factor * x

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["factor"] = np.float32(self.factor)

    def load_own_variables(self, store):
        self.factor = float(np.asarray(store["factor"]))


@zoo(**CLASSES, everywhere="one member")
def number_outside_of_the_config():
    layer = Remembers()
    layer.factor = 3.0
    return keras.Sequential([keras.Input((4,)), layers.Dense(5), layer, layers.Dense(3)])


@zoo(x={"a": floats(3), "b": whole(5)}, y=floats(1), loss="mse", everywhere=True)
def inputs_by_name():
    a, b = keras.Input((3,), name="a"), keras.Input((), dtype="int32", name="b")
    h = layers.Concatenate()([layers.Dense(2)(a), layers.Embedding(5, 2)(b)])
    return keras.Model({"a": a, "b": b}, layers.Dense(1)(h))


@zoo(x=[floats(3), floats(3)], y=whole(2), loss="binary_crossentropy")
def siamese():
    one, other = keras.Input((3,)), keras.Input((3,))
    embed = keras.Sequential([keras.Input((3,)), layers.Dense(2, "tanh")])
    distance = layers.Lambda(lambda t: abs(t[0] - t[1]))([embed(one), embed(other)])
    return keras.Model([one, other], layers.Dense(1, "sigmoid")(distance))


TWO = {"kind": "sparse_categorical_crossentropy", "size": "mse"}


@zoo(
    x=floats(4),
    y={"kind": whole(3), "size": floats(1)},
    loss=TWO,
    compile={"loss_weights": {"kind": 1.0, "size": 0.3}, "metrics": {"kind": ["accuracy"]}},
    everywhere=True,
)
def outputs_by_name():
    inputs = keras.Input((4,))
    h = layers.Dense(5, "tanh")(inputs)
    kind = layers.Dense(3, "softmax", name="kind")(h)
    return keras.Model(inputs, {"kind": kind, "size": layers.Dense(1, name="size")(h)})


@zoo(
    x=floats(4),
    y=[whole(2), floats(2)],
    loss=["binary_crossentropy", "mae"],
    compile={"loss_weights": [2.0, 0.5]},
)
def list_of_outputs():
    inputs = keras.Input((4,))
    h = layers.Dense(5, "tanh")(inputs)
    return keras.Model(inputs, [layers.Dense(1, "sigmoid")(h), layers.Dense(2)(h)])


@zoo(x={"user": whole(6), "film": whole(7)}, y=floats(), loss="mse")
def recommender():
    user, film = (keras.Input((), dtype="int32", name=name) for name in ("user", "film"))
    regularizer = keras.regularizers.L2(1e-3)
    vectors = [
        layers.Embedding(rows, 3, embeddings_regularizer=regularizer)(column)
        for rows, column in ((6, user), (7, film))
    ]
    return keras.Model({"user": user, "film": film}, layers.Dot(axes=1)(vectors))


@zoo(x=whole(9, 1, dtype="int64"), y=whole(2), loss="binary_crossentropy", backends=("tensorflow",))
def integer_lookup():
    lookup = layers.IntegerLookup(vocabulary=list(range(6)), output_mode="multi_hot")
    inputs = keras.Input((1,), dtype="int64")
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(lookup(inputs)))


@zoo(x=floats(2), y=whole(2), loss="binary_crossentropy")
def discretization():
    inputs = keras.Input((2,))
    bins = layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.0])(inputs)
    h = layers.Flatten()(layers.CategoryEncoding(4, output_mode="one_hot")(bins))
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(h))


def words(*shape):
    import tensorflow as tf

    def make(rng):
        return tf.constant(rng.choice(["red", "green", "blue", "grey"], size=(EXAMPLES, *shape)))

    return make


def sentences(rng):
    return words()(rng) + " " + words()(rng)


@zoo(x=lambda rng: words(1)(rng), y=whole(2), loss="binary_crossentropy", backends=("tensorflow",))
def string_lookup():
    inputs = keras.Input((1,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["red", "green", "blue"], output_mode="multi_hot")
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(lookup(inputs)))


@zoo(x=lambda rng: sentences(rng), y=whole(2), loss="binary_crossentropy", backends=("tensorflow",))
def text_vectorization():
    vectorize = layers.TextVectorization(max_tokens=8, output_sequence_length=3)
    vectorize.adapt(["red green blue grey"])
    return keras.Sequential(
        [
            keras.Input((), dtype="string"),
            vectorize,
            layers.Embedding(8, 3),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1, "sigmoid"),
        ]
    )


@zoo(**CLASSES, backends=("torch",), warned="No rule measures")
def torch_module():
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    inputs = keras.Input((4,))
    wrapped = layers.TorchModuleWrapper(net, output_shape=(None, 3))
    return keras.Model(inputs, wrapped(inputs))


class OwnStep(keras.Model):
    """A step of its own without a compiled loss, as a variational autoencoder's."""

    def train_step(self, *args):
        raise AssertionError("Refused before the first step.")


@zoo(x=floats(4), y=floats(1), loss=None, output="values", refused="train_step", everywhere=True)
def step_of_ones_own():
    inputs = keras.Input((4,))
    return OwnStep(inputs, layers.Dense(1)(inputs))


@zoo(x=floats(4), y=[floats(1), None], loss=["mse", None], everywhere=True)
def output_beside_the_loss():
    inputs = keras.Input((4,))
    h = layers.Dense(5, "tanh")(inputs)
    return keras.Model(inputs, [layers.Dense(1)(h), h])


@zoo(**NUMBERS, fit={"sample_weight": np.linspace(0.5, 1.5, EXAMPLES).astype("float32")})
def weights_of_examples():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(1)])


@zoo(**CLASSES, fit={"class_weight": {0: 0.8, 1: 1.0, 2: 1.3}})
def weights_of_classes():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(3)])
