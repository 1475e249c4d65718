"""Programs that read tables, and series of numbers."""

import csv
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from examples.studies.programs.program import (
    RMSE,
    Program,
    rmse,
    shuffled,
    split,
    standardised,
)

NUMBERS, WORDS = (
    {"age": 0, "schooling": 4, "hours": 12},
    {"work": 1, "status": 5, "job": 6, "sex": 9},
)


def words_and_numbers(folder):
    """Number 01: columns of words and of numbers, prepared by layers of the model."""
    cut = 1500
    rows = np.genfromtxt(
        Path(folder) / "bandits" / "adult" / "adult.data", dtype=str, delimiter=", ", max_rows=2500
    )
    x = {name: rows[:, [column]].astype("float32") for name, column in NUMBERS.items()}
    x |= {name: rows[:, [column]] for name, column in WORDS.items()}
    y = (rows[:, -1] == ">50K").astype("float32")
    (x_train, y_train), test = split(shuffled((x, y)), cut)
    return Program(
        source="structured_data_classification_from_scratch, Adult",
        make=lambda: prepared_inside(x_train),
        train=(dataset(x_train, y_train),),
        test=(dataset(*test),),
        num_data=cut,
        loss="binary_crossentropy",
        epochs=8,
    )


def dataset(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(32)


def prepared_inside(x):
    inputs, columns = {}, []
    for name in x:
        is_word = name in WORDS
        inputs[name] = keras.Input((1,), name=name, dtype="string" if is_word else "float32")
        layer = layers.StringLookup(output_mode="multi_hot") if is_word else layers.Normalization()
        layer.adapt(x[name])
        columns.append(layer(inputs[name]))
    h = layers.Dense(32, "relu")(layers.concatenate(columns))
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(layers.Dropout(0.5)(h)))


FEATURES = {"status": 0, "months": 1, "history": 2, "purpose": 3, "amount": 4, "rate": 7, "age": 12}
FLOATS = ("months", "amount", "age")


def feature_space(folder):
    """Number 02: the columns are encoded in `tf.data`."""
    cut = 800
    space, encoded = encoded_credit(folder, cut)
    return Program(
        source="structured_data_classification_with_feature_space, German credit",
        make=lambda: dense_on(space),
        train=(encoded[0],),
        test=(encoded[1],),
        num_data=cut,
        loss="binary_crossentropy",
        epochs=8,
    )


def encoded_credit(folder, cut):
    """A `FeatureSpace` and the datasets to train and to test on."""
    path = Path(folder) / "logistic_regression" / "german_credit" / "german.data"
    rows = np.loadtxt(path, dtype=str)
    x = {name: rows[:, column] for name, column in FEATURES.items()}
    x |= {name: x[name].astype("float32") for name in FLOATS}
    x["rate"] = x["rate"].astype("int64")
    parts = split(shuffled((x, (rows[:, -1] == "1").astype("float32"))), cut)
    kind = keras.utils.FeatureSpace
    space = kind(
        features={
            **{name: "string_categorical" for name in ("status", "history", "purpose")},
            "months": "float_normalized",
            "amount": "float_normalized",
            "rate": kind.integer_categorical(num_oov_indices=0),
            "age": kind.float_discretized(num_bins=10),
        },
        crosses=[kind.cross(("status", "history"), crossing_dim=32)],
        output_mode="concat",
    )
    raw = [dataset(*part) for part in parts]
    space.adapt(raw[0].map(lambda x, y: x))
    return space, [part.map(lambda x, y: (space(x), y)).cache() for part in raw]


def dense_on(space):
    inputs = space.get_encoded_features()
    h = layers.Dropout(0.5)(layers.Dense(32, "relu")(inputs))
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(h))


def bikes(folder):
    """The hours of two years, a dictionary of columns of numbers and dates."""
    with (Path(folder) / "uci_regression" / "bike-sharing" / "hour.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def series(folder):
    """Number 07: the next hour from the 24 hours before."""
    hours, cut, last = 24, 2500, 3300
    names = ("temp", "hum", "windspeed", "workingday", "hr", "cnt")
    columns = bikes(folder)
    x = standardised(np.stack([columns[n].astype("float32") for n in names], axis=1), cut)

    def windows(begin, end):
        return keras.utils.timeseries_dataset_from_array(
            x[begin : end - hours], x[begin + hours : end, -1:], hours, batch_size=64
        )

    def make():
        inputs = keras.Input((hours, len(names)))
        return keras.Model(inputs, layers.Dense(1)(layers.LSTM(32)(inputs)))

    return Program(
        source="timeseries_weather_forecasting, LSTM, hourly hires of bikes",
        make=make,
        train=(windows(0, cut),),
        test=(windows(cut, last),),
        num_data=cut - 2 * hours + 1,
        loss="mse",
        metric=RMSE,
        metrics=rmse,
    )


def power_plant(inside, standard_targets, what):
    """Number 13: the output of a power plant in MW, 454 on average, spread 17."""

    def program(folder):
        cut = 1500
        rows = np.loadtxt(Path(folder) / "uci_regression" / "power-plant" / "data.txt")
        x, y = (a[:2500].astype("float32") for a in shuffled((rows[:, :4], rows[:, 4:])))
        y = standardised(y, cut) if standard_targets else y
        x = x if inside else standardised(x, cut)
        train, test = split((x, y), cut)
        return Program(
            source=f"regression tutorial, power plant, {what}",
            make=lambda: two_layers(train[0] if inside else None),
            train=train,
            test=test,
            num_data=cut,
            loss="mse",
            metric=RMSE,
            metrics=rmse,
            epochs=12,
        )

    return program


def two_layers(x):
    """64-64-1, after a `Normalization` that is adapted to x where there is one."""
    first = []
    if x is not None:
        first = [layers.Normalization()]
        first[0].adapt(x)
    hidden = [layers.Dense(64, "relu"), layers.Dense(64, "relu")]
    return keras.Sequential([keras.Input((4,)), *first, *hidden, layers.Dense(1)])


normalized_inside = power_plant(True, True, "`Normalization` in the model")
normalized_before = power_plant(False, True, "normalised by NumPy")
raw_targets = power_plant(False, False, "targets in MW")


def quantile_loss(y_true, y_pred):
    """Of the 0.9 quantile."""
    gap = y_true - y_pred
    return ops.mean(ops.maximum(0.9 * gap, -0.1 * gap), axis=-1)


def counts(loss, activation=None, output=None, what="", sampler=None):
    """Number 16: how many bikes are hired in an hour."""

    def program(folder):
        cut, columns = 2000, bikes(folder)
        names = ("temp", "hum", "windspeed", "workingday", "weathersit")
        numbers = np.stack([columns[n].astype("float32") for n in names], axis=1)
        x = np.concatenate([numbers, np.eye(24)[columns["hr"].astype(int)]], axis=1)
        data = (x.astype("float32")[:3000], columns["cnt"].astype("float32")[:3000, None])
        train, test = split(shuffled(data), cut)
        return Program(
            source=f"hourly hires of bikes, {what}",
            make=lambda: one_layer(29, activation),
            train=train,
            test=test,
            num_data=cut,
            loss=loss,
            metric=RMSE,
            metrics=rmse,
            output=output,
            sampler=sampler or {},
            epochs=8,
        )

    return program


def one_layer(features, activation):
    return keras.Sequential(
        [
            keras.Input((features,)),
            layers.Dense(32, "relu"),
            layers.Dense(1, activation),
        ]
    )


poisson = counts("poisson", "exponential", what="`poisson`")
model_fisher = counts(
    *("poisson", "exponential"),
    what='`poisson`, sampled with `fisher="model"`',
    sampler={"fisher": "model"},
)
absolute = counts("mae", what="`mae`")
quantile = counts(quantile_loss, output="values", what="a quantile loss")
huber = counts(keras.losses.Huber(), what="`Huber`")
logarithmic = counts("msle", "softplus", what="`msle`")


def rare_class(folder):
    """Number 17: class weights of one over the count of the class."""
    path = Path(folder) / "bandits" / "statlog_shuttle" / "shuttle.trn"
    rows = shuffled(np.loadtxt(path)[:4000])
    cut = 3000
    rng = np.random.default_rng(0)
    x = standardised(rows[:, :-1], cut)
    x = x + rng.normal(0, 0.7, x.shape).astype("float32")
    y = (rows[:, -1:] == 5).astype("uint8")
    train, test = split((x, y), cut)
    positive = int(train[1].sum())
    return Program(
        source="imbalanced_classification, one class of Shuttle, `class_weight` 1/count",
        make=rare_class_model,
        train=train,
        test=test,
        num_data=cut,
        loss="binary_crossentropy",
        metric="auc",
        metrics=lambda: [keras.metrics.AUC(name="auc")],
        epochs=8,
        rate=1e-2,
        fit={"batch_size": 256, "class_weight": {0: 1 / (cut - positive), 1: 1 / positive}},
    )


def rare_class_model():
    return keras.Sequential(
        [
            keras.Input((9,)),
            layers.Dense(64, "relu"),
            layers.Dense(64, "relu"),
            layers.Dropout(0.3),
            layers.Dense(1, "sigmoid"),
        ]
    )
