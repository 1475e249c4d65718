"""Programs that read words, characters and tokens."""

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from examples.studies.programs.program import Program, shuffled, split

TOKENS = 20  # words of a line
WORDS = "lines of the first and the last part of Shakespeare's plays"


def lines_of(folder, count):
    """Texts and labels: as many lines of the start of the file (0) and of its end (1)."""
    text = (Path(folder) / "tiny_shakespeare" / "input.txt").read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 20]
    texts = np.array(lines[:count] + lines[-count:])
    return shuffled((texts, np.repeat([0, 1], count).astype("float32")))


def tokens_of(folder, count, vocabulary, cut):
    """The same with the number of each word in place of the text; words of the first `cut`."""
    texts, labels = lines_of(folder, count)
    vectorize = layers.TextVectorization(vocabulary, output_sequence_length=TOKENS)
    vectorize.adapt(texts[:cut])
    return ops.convert_to_numpy(vectorize(texts)).astype("int32"), labels


def convolution(folder):
    """Number 03: dropout in front of the convolutions, a vocabulary of 5,000 words in `tf.data`."""
    import tensorflow as tf

    cut = 2000
    texts, labels = lines_of(folder, 1500)
    vectorize = layers.TextVectorization(5000, output_sequence_length=TOKENS)
    vectorize.adapt(texts[:cut])

    def dataset(x, y):
        rows = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
        return (rows.map(lambda x, y: (vectorize(x), y)).cache().prefetch(2),)

    train, test = (dataset(*part) for part in split((texts, labels), cut))
    return Program(
        source=f"text_classification_from_scratch, {WORDS}",
        make=lambda: convolutional(5000, 64, dropout=0.5),
        train=train,
        test=test,
        num_data=cut,
        loss="binary_crossentropy",
    )


def small_convolution(folder):
    cut = 2000
    train, test = split(tokens_of(folder, 1500, 2000, cut), cut)
    return Program(
        source="the same, 2,000 words, no dropout",
        make=lambda: convolutional(2000, 32, dropout=0.0),
        train=train,
        test=test,
        num_data=cut,
        loss="binary_crossentropy",
    )


def convolutional(vocabulary, width, dropout):
    inputs = keras.Input((TOKENS,), dtype="int64")
    x = layers.Dropout(dropout)(layers.Embedding(vocabulary, width)(inputs))
    x = layers.Conv1D(width, 7, strides=3, activation="relu")(x)
    x = layers.Conv1D(width, 3, padding="same", strides=2, activation="relu")(x)
    x = layers.Dense(width, activation="relu")(layers.GlobalMaxPooling1D()(x))
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(layers.Dropout(dropout)(x)))


@keras.saving.register_keras_serializable("programs")
class TransformerBlock(layers.Layer):
    def __init__(self, width=32, heads=2, hidden=32, rate=0.1, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(heads, key_dim=width)
        self.hidden, self.out = layers.Dense(hidden, "relu"), layers.Dense(width)
        self.norms = [layers.LayerNormalization(epsilon=1e-6) for _ in range(2)]
        self.drops = [layers.Dropout(rate) for _ in range(2)]

    def call(self, x):
        x = self.norms[0](x + self.drops[0](self.attention(x, x)))
        return self.norms[1](x + self.drops[1](self.out(self.hidden(x))))


@keras.saving.register_keras_serializable("programs")
class TokenAndPosition(layers.Layer):
    def __init__(self, vocabulary=3000, length=TOKENS, width=32, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(vocabulary, width)
        self.places = layers.Embedding(length, width)

    def call(self, x):
        return self.words(x) + self.places(ops.arange(ops.shape(x)[-1]))


def transformer(folder):
    cut = 1500
    x, y = tokens_of(folder, 1250, 3000, cut)
    train, test = split((x, y.astype("int32")), cut)
    return Program(
        source=f"text_classification_with_transformer, {WORDS}",
        make=transformer_model,
        train=train,
        test=test,
        num_data=cut,
        loss="sparse_categorical_crossentropy",
        epochs=4,
    )


def transformer_model():
    inputs = keras.Input((TOKENS,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(TransformerBlock()(TokenAndPosition()(inputs)))
    x = layers.Dense(20, "relu")(layers.Dropout(0.1)(x))
    return keras.Model(inputs, layers.Dense(2, "softmax")(layers.Dropout(0.1)(x)))


ALPHABET, DIGITS = "0123456789+ ", 2


def addition(folder):
    cut, rng = 2000, np.random.default_rng(0)
    chosen = rng.permutation(100**DIGITS)[: cut + 500]
    sums = [divmod(int(both), 100) for both in chosen]
    length = 2 * DIGITS + 1
    x = one_hot([f"{a}+{b}".ljust(length)[::-1] for a, b in sums])
    y = one_hot([str(a + b).ljust(DIGITS + 1) for a, b in sums])
    train, test = split((x, y), cut)
    return Program(
        source="addition_rnn, sums of two numbers below 100",
        make=addition_model,
        train=train,
        test=test,
        num_data=cut,
        loss="categorical_crossentropy",
    )


def one_hot(texts):
    places = np.array([[ALPHABET.index(character) for character in text] for text in texts])
    return np.eye(len(ALPHABET), dtype=bool)[places]


def addition_model():
    return keras.Sequential(
        [
            keras.Input((2 * DIGITS + 1, len(ALPHABET))),
            layers.LSTM(64),
            layers.RepeatVector(DIGITS + 1),
            layers.LSTM(64, return_sequences=True),
            layers.Dense(len(ALPHABET), "softmax"),
        ]
    )


@keras.saving.register_keras_serializable("programs")
class TokenLoss(keras.losses.Loss):
    """The mean over the tokens that are no padding, as in the example."""

    def call(self, y_true, y_pred):
        each = ops.sparse_categorical_crossentropy(y_true, y_pred)
        counts = ops.cast(y_true > 0, each.dtype)
        return ops.sum(each * counts) / ops.sum(counts)


def tags(loss, mask, output=None, what=""):
    """Number 19: padding that does not count, said in one of three ways."""

    def program(folder):
        cut = 1200
        train, test = split(tagged(1500), cut)
        return Program(
            source=f"ner_transformers, tags of made-up tokens with padding: {what}",
            make=lambda: tagger(mask),
            train=train,
            test=test,
            num_data=cut,
            loss=loss(),
            output=output,
        )

    return program


def tagged(count):
    """Tokens and their tags; the tag of some depends on the token before. 0 is padding."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 120, (count, TOKENS))
    after_even = np.roll(ids, 1, axis=1) % 2 == 0
    found = 1 + (ids % 7 < 2) + 2 * ((ids % 7 == 3) & after_even)
    counts = np.arange(TOKENS) < rng.integers(4, 11, (count, 1))
    return (ids * counts).astype("int32"), (found * counts).astype("int32")


def tagger(mask):
    inputs = keras.Input((TOKENS,), dtype="int32")
    x = layers.Embedding(120, 16, mask_zero=mask)(inputs)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(5, "softmax")(x))


CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy
masked_tags = tags(CROSSENTROPY, True, what="`mask_zero`")
ignored_tags = tags(lambda: CROSSENTROPY(ignore_class=0), False, what="`ignore_class`")
own_loss_tags = tags(TokenLoss, False, "values", what="a loss of its own")
