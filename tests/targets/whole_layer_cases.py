"""One row for each kind of layer that is measured as a whole."""

import keras
from keras import layers, ops


class OwnBias(layers.Layer):
    """Weights of its own, without a rule."""

    def build(self, input_shape):
        self.offset = self.add_weight(shape=(input_shape[-1],), name="offset")
        self.factor = self.add_weight(shape=(), name="factor")

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        return self.factor * ops.tanh(inputs + self.offset)


class PositionEmbedding(layers.Layer):
    """As KerasHub's: rows for positions, whatever the inputs are."""

    def __init__(self, sequence_length, **kwargs):
        super().__init__(**kwargs)
        self.sequence_length = sequence_length
        self.supports_masking = True

    def build(self, inputs_shape):
        shape = (self.sequence_length, inputs_shape[-1])
        self.position_embeddings = self.add_weight(name="embeddings", shape=shape)

    def call(self, inputs, start_index=0):
        shape = ops.shape(inputs)
        rows = ops.slice(
            ops.convert_to_tensor(self.position_embeddings),
            (start_index, 0),
            (shape[-2], shape[-1]),
        )
        return ops.broadcast_to(rows, shape)


class OwnBlock(layers.Layer):
    """A weight of its own beside layers that have a rule."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, activation="tanh")
        self.norm = layers.LayerNormalization()

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(4,), name="scale")
        self.dense.build(input_shape)
        self.norm.build((*input_shape[:-1], 4))

    def call(self, inputs, training=False):
        return inputs + self.scale * self.dense(self.norm(inputs))


class OwnWrapper(layers.Wrapper):
    """The mask that hangs on its inputs reaches the layer inside."""

    def __init__(self, layer):
        super().__init__(layer)
        self.supports_masking = True

    def compute_mask(self, inputs, mask):
        return None

    def call(self, inputs):
        return self.layer(2.0 * inputs) + self.layer(inputs)


class OwnCell(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        h = ops.tanh(ops.matmul(inputs, self.kernel) + 0.5 * states[0])
        return h, [h]


def with_mask(layer):
    return lambda x: ops.multiply(layer(layers.Masking(0.0)(x)), 1.0)  # which has no mask


def with_states(layer):
    """Begins with states that are made of the inputs, and gives back those of the end."""

    def call(x):
        mean = ops.mean(x, axis=1)
        output, *states = layer(x, initial_state=[mean[:, :3], -mean[:, :3]])
        return ops.concatenate([layers.Flatten()(output), *states], axis=1)

    return call


def with_lora(layer):
    def call(x):
        output = layer(x)
        layer.enable_lora(2)
        return output

    return call


def inner_model():
    inputs = keras.Input((5, 4))
    hidden = layers.GRU(3, return_sequences=True)(inputs)
    return keras.Model(inputs, layers.Dense(2)(hidden))


# family: (shape of one example, {case: what makes the layer})
CASES = {
    "recurrent": (
        (5, 4),
        {
            "lstm": lambda: layers.LSTM(3),
            "lstm_sequences": lambda: layers.LSTM(3, return_sequences=True, go_backwards=True),
            "lstm_masked": lambda: with_mask(layers.LSTM(3)),
            "lstm_states": lambda: with_states(layers.LSTM(3, return_state=True)),
            "gru": lambda: layers.GRU(3),
            "gru_before": lambda: with_mask(layers.GRU(3, reset_after=False)),
            "simple": lambda: layers.SimpleRNN(3, unroll=True),
            "no_bias": lambda: layers.SimpleRNN(3, use_bias=False),
            "stacked": lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]),
            "own_cell": lambda: layers.RNN(OwnCell(3), return_sequences=True),
            "in_a_model": inner_model,
        },
    ),
    "bidirectional": (
        (5, 4),
        {
            "lstm": lambda: layers.Bidirectional(layers.LSTM(3)),
            "gru_masked": lambda: with_mask(
                layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum")
            ),
            "two": lambda: layers.Bidirectional(
                layers.SimpleRNN(3), backward_layer=layers.GRU(3, go_backwards=True)
            ),
        },
    ),
    "convolution": (
        (3, 4, 2),
        {
            "one": lambda: layers.ConvLSTM1D(2, 3),
            "one_sequences": lambda: layers.ConvLSTM1D(
                2, 2, padding="same", return_sequences=True, go_backwards=True
            ),
        },
    ),
    "convolution_2d": ((2, 3, 3, 2), {"two": lambda: layers.ConvLSTM2D(2, 2)}),
    "convolution_3d": ((2, 2, 3, 2, 1), {"three": lambda: layers.ConvLSTM3D(2, 2)}),
    "wrapper": (
        (5, 4),
        {
            "dense": lambda: layers.TimeDistributed(layers.Dense(3, activation="tanh")),
            "masked": lambda: with_mask(layers.TimeDistributed(layers.Dense(3))),
            "norm": lambda: layers.TimeDistributed(layers.LayerNormalization()),
            "model": lambda: layers.TimeDistributed(
                keras.Sequential([layers.Dense(3, activation="tanh"), layers.Dense(2)])
            ),
            "own": lambda: OwnWrapper(layers.Dense(3, activation="tanh")),
            "own_masked": lambda: with_mask(OwnWrapper(layers.SimpleRNN(2))),
        },
    ),
    "lora": (
        (5, 4),
        {
            "dense": lambda: with_lora(layers.Dense(3, activation="tanh")),
            "no_bias": lambda: with_lora(layers.Dense(3, use_bias=False)),
            "einsum": lambda: with_lora(layers.EinsumDense("abc,cd->abd", (5, 3), bias_axes="d")),
            "convolution": lambda: with_lora(layers.Conv1D(3, 2)),
        },
    ),
    "lora_embedding": ((5,), {"words": lambda: with_lora(layers.Embedding(7, 3))}),
    "own": (
        (5, 4),
        {
            "bias": OwnBias,
            "positions": lambda: PositionEmbedding(6),
            "block": OwnBlock,
            "prelu": layers.PReLU,
            "prelu_shared": lambda: layers.PReLU(shared_axes=[1]),
            "nested": lambda: layers.TimeDistributed(OwnBias()),
        },
    ),
}
