"""Networks of sequences: text, time series, masks, recurrence, attention."""

import keras
from keras import layers, ops
from zoo.row import floats, padded, whole, zoo

BINARY = {"x": padded(12, 7), "y": whole(2), "loss": "binary_crossentropy"}
TAGS = {"x": padded(12, 7), "y": whole(3, 7), "loss": "sparse_categorical_crossentropy"}
SERIES = {"x": floats(6, 2), "y": floats(1), "loss": "mse"}


def text(*middle, mask_zero=False):
    return keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            layers.Embedding(12, 4, mask_zero=mask_zero),
            *middle,
            layers.Dense(1, "sigmoid"),
        ]
    )


def tags(*middle):
    return keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            layers.Embedding(12, 4, mask_zero=True),
            *middle,
            layers.Dense(3, "softmax"),
        ]
    )


def series(*middle):
    return keras.Sequential([keras.Input((6, 2)), *middle, layers.Dense(1)])


@zoo(**BINARY)
def bag_of_words():
    return text(layers.GlobalAveragePooling1D(), mask_zero=True)


@zoo(**BINARY)
def convolutions_of_text():
    return text(layers.Conv1D(4, 3, activation="relu"), layers.GlobalMaxPooling1D())


@zoo(**TAGS, compile={"metrics": ["accuracy"], "weighted_metrics": ["accuracy"]}, everywhere=True)
def masked_tags():
    return tags()


@zoo(**TAGS, everywhere=True)
def masked_lstm_tags():
    return tags(layers.LSTM(3, return_sequences=True))


@zoo(**BINARY)
def bidirectional_lstm():
    return text(layers.Bidirectional(layers.LSTM(3)), mask_zero=True)


@zoo(**SERIES)
def gru():
    return series(layers.GRU(3))


@zoo(**SERIES)
def masked_simple_rnn():
    return series(layers.Masking(0.0), layers.SimpleRNN(3))


@zoo(**SERIES)
def stacked_cells():
    return series(layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)]))


@zoo(x=floats(3, 4, 2), y=floats(1), loss="mse")
def convolutional_lstm():
    return keras.Sequential(
        [keras.Input((3, 4, 2)), layers.ConvLSTM1D(2, 2), layers.Flatten(), layers.Dense(1)]
    )


@zoo(x=floats(6, 2), y=floats(6, 1), loss="mse")
def time_distributed():
    dense = layers.TimeDistributed(layers.Dense(3, "tanh"))
    return keras.Sequential([keras.Input((6, 2)), dense, layers.Dense(1)])


@zoo(**SERIES)
def causal_convolutions():
    conv = layers.Conv1D(3, 2, padding="causal", dilation_rate=2, activation="relu")
    return series(conv, layers.Flatten())


@zoo(**BINARY, adam_fails=("torch",))
def transformer():
    inputs = keras.Input((7,), dtype="int32")
    positions = layers.Embedding(7, 4)(ops.arange(7))
    h = layers.Embedding(12, 4)(inputs) + positions
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 2, dropout=0.1)(h, h))
    h = layers.LayerNormalization()(h + layers.Dense(4)(layers.Dense(6, "relu")(h)))
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(layers.GlobalAveragePooling1D()(h)))


@zoo(
    x=whole(12, 7),
    y=whole(12, 7),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    everywhere=True,
)
def language_model():
    inputs = keras.Input((7,), dtype="int32")
    h = layers.Embedding(12, 4)(inputs)
    h = h + layers.MultiHeadAttention(2, 2)(h, h, use_causal_mask=True)
    return keras.Model(inputs, layers.Dense(12)(layers.LayerNormalization()(h)))


@zoo(
    x=whole(12, 7),
    y=whole(12, 7),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    everywhere=True,
)
def tied_embedding():
    inputs = keras.Input((7,), dtype="int32")
    embedding = layers.ReversibleEmbedding(12, 4)
    h = layers.Dense(4, "tanh")(embedding(inputs))
    return keras.Model(inputs, embedding(h, reverse=True))


@zoo(**SERIES)
def grouped_query_attention():
    inputs = keras.Input((6, 2))
    h = layers.Dense(4)(inputs)
    h = h + layers.GroupQueryAttention(2, 2, 1)(h, h)
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(h)))


@zoo(**SERIES)
def attention_layers():
    inputs = keras.Input((6, 2))
    h = layers.Dense(3)(inputs)
    h = layers.Attention(use_scale=True)([h, h]) + layers.AdditiveAttention()([h, h])
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(h)))
