"""Programs with several inputs or outputs."""

import keras
import numpy as np
from keras import layers, ops

from examples.studies.programs.program import RMSE, Program, mnist, rmse, split


@keras.saving.register_keras_serializable("programs")
def distance(pair):
    squares = ops.sum(ops.square(pair[0] - pair[1]), axis=1, keepdims=True)
    return ops.sqrt(ops.maximum(squares, keras.backend.epsilon()))


@keras.saving.register_keras_serializable("programs")
def contrastive_loss(y_true, y_pred):
    near = ops.square(ops.maximum(1 - y_pred, 0))
    return ops.mean((1 - y_true) * ops.square(y_pred) + y_true * near, axis=-1)


def pairs(x, y, count, rng):
    """Two images, and whether their digits are the same."""
    first = rng.integers(0, len(x), count)
    same = rng.random(count) < 0.5
    second = [
        rng.choice(np.flatnonzero((y == y[i]) == equal))
        for i, equal in zip(first, same, strict=True)
    ]
    return (x[first], x[np.array(second)]), same.astype("float32")[:, None]


def siamese(loss, output, what):
    """Number 10: one network embeds both images."""

    def program(folder):
        rng = np.random.default_rng(0)
        train, test = (
            pairs(*part, count, rng)
            for part, count in zip(mnist(folder, 3000, 1000), (1500, 500), strict=True)
        )
        return Program(
            source=f"siamese_contrastive, MNIST, {what}",
            make=siamese_model,
            train=train,
            test=test,
            num_data=1500,
            loss=loss,
            output=output,
            fit={"batch_size": 64},
        )

    return program


def siamese_model():
    image = keras.Input((28, 28, 1))
    x = layers.Conv2D(4, 5, activation="tanh")(layers.AveragePooling2D(2)(image))
    x = layers.Conv2D(16, 5, activation="tanh")(layers.AveragePooling2D(2)(x))
    embed = keras.Model(image, layers.Dense(10, "tanh")(layers.Flatten()(x)))
    both = keras.Input((28, 28, 1)), keras.Input((28, 28, 1))
    apart = layers.Lambda(distance)([embed(one) for one in both])
    return keras.Model(both, layers.Dense(1, "sigmoid")(apart))


same_digit = siamese("binary_crossentropy", None, "crossentropy")
contrastive = siamese(contrastive_loss, "values", "contrastive loss")


def tickets(folder):
    """Number 11: texts and tags of a ticket, its priority and its department."""
    cut, count = 1200, 1500
    rng = np.random.default_rng(0)
    department = rng.integers(0, 4, count)
    title, body = rng.integers(0, 500, (count, 6)), rng.integers(0, 500, (count, 20))
    title[:, 0] = 10 * department + rng.integers(0, 10, count)
    body[:, ::4] = 100 + 7 * department[:, None] + rng.integers(0, 7, (count, 5))
    tags = rng.integers(0, 2, (count, 12)).astype("float32")
    urgency = tags[:, :3].sum(axis=1) + department / 2 + rng.normal(0, 0.3, count)
    x = {"title": title, "body": body, "tags": tags}
    y = {
        "priority": (urgency > 2).astype("float32")[:, None],
        "department": np.eye(4, dtype="float32")[department],
    }
    train, test = split((x, y), cut)
    return Program(
        source="functional_api guide, made-up tickets, two losses and `loss_weights`",
        make=ticket_model,
        train=train,
        test=test,
        num_data=cut,
        loss={
            "priority": keras.losses.BinaryCrossentropy(from_logits=True),
            "department": keras.losses.CategoricalCrossentropy(from_logits=True),
        },
        metric="department_accuracy",
        metrics=lambda: {"department": ["accuracy"]},
        epochs=5,
        compile={"loss_weights": {"priority": 1.0, "department": 0.2}},
    )


def ticket_model():
    title, body = keras.Input((6,), name="title"), keras.Input((20,), name="body")
    tags = keras.Input((12,), name="tags")
    x = layers.concatenate(
        [
            layers.LSTM(32)(layers.Embedding(500, 16)(title)),
            layers.LSTM(16)(layers.Embedding(500, 16)(body)),
            tags,
        ]
    )
    outputs = {
        "priority": layers.Dense(1, name="priority")(x),
        "department": layers.Dense(4, name="department")(x),
    }
    return keras.Model({"title": title, "body": body, "tags": tags}, outputs)


@keras.saving.register_keras_serializable("programs")
class Recommender(keras.Model):
    def __init__(self, users=300, films=400, width=8, **kwargs):
        super().__init__(**kwargs)
        self.users, self.user_shifts = self.vectors(users, width), layers.Embedding(users, 1)
        self.films, self.film_shifts = self.vectors(films, width), layers.Embedding(films, 1)

    def vectors(self, rows, width):
        return layers.Embedding(
            rows,
            width,
            embeddings_initializer="he_normal",
            embeddings_regularizer=keras.regularizers.L2(1e-6),
        )

    def call(self, inputs):
        user, film = inputs[:, 0], inputs[:, 1]
        match = ops.sum(self.users(user) * self.films(film), axis=1, keepdims=True)
        return ops.sigmoid(match + self.user_shifts(user) + self.film_shifts(film))


def recommender(folder):
    """Number 12: half stars from 0.5 to 5, as targets from 0 to 1 of a crossentropy."""
    cut, count = 6000, 7500
    rng = np.random.default_rng(0)
    users, films = rng.normal(0, 0.7, (300, 3)), rng.normal(0, 0.7, (400, 3))
    x = np.stack([rng.integers(0, 300, count), rng.integers(0, 400, count)], axis=1)
    liking = 3 + (users[x[:, 0]] * films[x[:, 1]]).sum(axis=1) + rng.normal(0, 0.5, count)
    stars = np.clip(np.round(2 * liking) / 2, 0.5, 5)
    train, test = split((x, ((stars - 0.5) / 4.5).astype("float32")[:, None]), cut)
    return Program(
        source="collaborative_filtering_movielens, made-up ratings, regularizers",
        make=Recommender,
        train=train,
        test=test,
        num_data=cut,
        loss="binary_crossentropy",
        metric=RMSE,
        metrics=rmse,
        fit={"batch_size": 64},
    )
