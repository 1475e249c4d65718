"""Is the fast noise good noise?

    python -m examples.benchmarks.noise_quality [--parts law,draws] [--small-crush PROGRAM]
    python -m examples.benchmarks.noise_quality --quick

`keras_langevin.noise` hashes a counter to a word of 32 bits and turns words into normal numbers: by
default the fast way, a polynomial of a sum of bytes, or with `exact=True` by the quantile function.
Runs on JAX alone; TensorFlow computes the same words, torch takes its own generator. `PROGRAM` is
`small_crush.c` of this folder, compiled against TestU01 1.2.3; without it the battery is left out.
Rows go to `noise_quality.jsonl` beside the page, and what is there is not computed again.
"""

import argparse
import collections
import contextlib
import functools
import itertools
import math
import multiprocessing
import os
import subprocess
import textwrap
import time
from pathlib import Path
from unittest import mock

os.environ["KERAS_BACKEND"] = "jax"
import jax
import numpy as np
from scipy.special import ndtr, ndtri

from examples.benchmarks.timing import interleaved, table, versions
from examples.studies.common import pages
from examples.studies.common.results import Results
from keras_langevin import noise
from keras_langevin.normal_numbers import normal_by_quantile, normal_by_sum

RESULTS = Path(__file__).parent
PARTS = ("time", "law", "draws", "battery")
BLOCK = 1_000_000  # numbers
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"
QUICK_STRIDE = 997

POWERS = range(1, 9)
BINS, REACH = 2**18, 9  # of the distribution function: per unit, to either side

NEIGHBOURS = (1, 2, 4, 16, 256, 65_536)
ITERATIONS = (1, 2, 10, 1000)
LONGEST_SUM = 50_000  # iterations
SMALL = (10, 100_000_000)
USES = ((1_000_000, 1000), (20_000, 50_000), SMALL, SMALL, SMALL)  # size of variable, iterations
QUICK_USES = ((1_000_000, 8), (20_000, 500), (10, 500_000))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--small-crush", type=Path, help="compiled small_crush.c")
    parser.add_argument("--quick", action="store_true", help="fewer numbers, no battery")
    parser.add_argument("--results", type=Path, help="folder; demo_output with --quick")
    options = parser.parse_args()
    chosen = options.parts.split(",")
    if not set(chosen) <= set(PARTS):
        parser.error(f"--parts knows {', '.join(PARTS)}. Received: --parts {options.parts}")
    folder = options.results or (Path("demo_output") if options.quick else RESULTS)
    results = Results(folder / "noise_quality.jsonl")
    parts = {
        "time": lambda: time_rows(results, options.quick),
        "law": lambda: law_rows(results, QUICK_STRIDE if options.quick else 1),
        "draws": lambda: draws_rows(results, QUICK_USES if options.quick else USES),
        "battery": lambda: battery_rows(results, None if options.quick else options.small_crush),
    }
    for part in chosen:
        parts[part]()
    pages.write(page, results.path)


# -------------------------------------------------------------------------------------- time


def time_rows(results, quick):
    count, repeats = (BLOCK, 3) if quick else (10 * BLOCK, 21)
    for threads, flags in {"one": ONE_THREAD, "as it comes": ""}.items():
        for memory in ("reused", "fresh"):
            key = {"part": "time", "numbers": count, "threads": threads, "memory": memory}
            results.run(in_child, flags, times, count, repeats, memory == "reused", **key)


def in_child(flags, function, *args):
    """The function's result in a new process, where XLA reads these flags."""
    with (
        mock.patch.dict(os.environ, XLA_FLAGS=flags),
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        return pool.apply(function, args)


def times(count, repeats, reused):
    """Nanoseconds a number, medians of turns, and the processor time over the time of each way of
    ours: how many cores it uses."""
    ways = {
        "fast": compiled(count, reused, exact=False),
        "exact": compiled(count, reused, exact=True),
        "NumPy": of_numpy(count, reused),
    }
    seconds = {way: float(np.median(s)) for way, s in interleaved(ways, repeats).items()}
    ours = ("fast", "exact")
    return (
        {f"{way}, ns": 1e9 * s / count for way, s in seconds.items()}
        | {f"{way} / NumPy": seconds[way] / seconds["NumPy"] for way in ours}
        | {f"{way}, cores": cores(ways[way], repeats) for way in ours}
        | {"load": os.getloadavg()[0], "machine": versions()}
    )


def compiled(count, reused, exact):
    def normal(memory, iteration):
        return noise.standard_normal((count,), 0, iteration, 0, exact)

    function = jax.jit(normal, donate_argnums=0, keep_unused=True)
    memory = jax.numpy.zeros(count) if reused else None

    def call():
        nonlocal memory
        numbers = function(memory, 1).block_until_ready()
        memory = numbers if reused else None

    return call


def of_numpy(count, reused):
    generator = np.random.default_rng(0)
    memory = np.empty(count, "float32") if reused else None
    return lambda: generator.standard_normal(count, "float32", memory)


def cores(function, repeats):
    began, used = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - used) / (time.perf_counter() - began)


# --------------------------------------------------------------------------------------- law


def fast(words):
    return normal_by_sum(words, noise._mix(words))


WAYS = {"fast": fast, "exact": normal_by_quantile}


def law_rows(results, stride):
    for way, normal in WAYS.items():
        results.run(law, normal, stride, part="law", way=way, stride=stride)


def law(normal, stride=1):
    """The law of `normal(words)` over the words that all counters hash to, or every `stride`-th. As
    the hash is a bijection, these are all words of 32 bits, whatever the key.

    Returns:
        A dict: number of words; "moment k", less the normal's, in standard deviations of z^k (so
        that the z-score of n draws expects √n times this); for even k "moment k, relative";
        "beyond ±x", the share over the normal's, less 1; "smallest", "largest"; and "distance",
        the largest of the distribution functions.
    """
    hashed = jax.jit(lambda counter: normal(noise._mix(counter)))
    sums = np.zeros(9)
    counts = np.zeros(2 * REACH * BINS, "int64")
    smallest, largest = math.inf, -math.inf
    for first in range(0, 2**32, BLOCK * stride):
        counter = np.arange(first, min(first + BLOCK * stride, 2**32), stride).astype("uint32")
        z = np.asarray(hashed(counter), "float64")
        sums += power_sums(z)
        bins = ((z + REACH) * BINS).astype("int64")
        counts += np.bincount(bins, minlength=len(counts))
        smallest, largest = min(smallest, z.min()), max(largest, z.max())
    moments = sums / sums[0]
    below = np.cumsum(counts) / sums[0]
    edges = np.arange(1, len(counts) + 1) / BINS - REACH
    found = {"words": int(sums[0])}
    for k in POWERS:
        error = moments[k] - normal_moment(k)
        found[f"moment {k}"] = error / power_variance(k) ** 0.5
        if k % 2 == 0:
            found[f"moment {k}, relative"] = error / normal_moment(k)
    for x in range(1, 6):
        for sign in (-1, 1):
            edge = (REACH + sign * x) * BINS - 1
            share = below[edge] if sign < 0 else 1 - below[edge]
            found[f"beyond {sign * x:+}"] = share / ndtr(-x) - 1
    distance = np.abs(below - ndtr(edges)).max()
    return {k: float(v) for k, v in found.items()} | {
        "smallest": float(smallest),
        "largest": float(largest),
        "distance": float(distance),
    }


def power_sums(z):
    """Sums of z^0 to z^8 of a float64 array."""
    powers = np.stack([np.ones(z.size), z.ravel(), *np.empty((3, z.size))])
    for k in (2, 3, 4):
        np.multiply(powers[k // 2], powers[k - k // 2], out=powers[k])
    products = powers @ powers.T
    return np.array([products[k // 2, k - k // 2] for k in range(9)])


def normal_moment(k):
    """E[z^k] = (k - 1)!! for even k."""
    return 0 if k % 2 else math.prod(range(1, k, 2))


def power_variance(k):
    return normal_moment(2 * k) - normal_moment(k) ** 2


# ------------------------------------------------------------------------------------- draws


def draws_rows(results, uses):
    for i, (size, iterations) in enumerate(uses):
        seeds = (2 * i, 2 * i + 1)
        key = {"part": "draws", "size": size, "iterations": iterations, "seed": seeds[0]}
        results.run(draws, noise.standard_normal, size, iterations, seeds, **key)


def draws(normal, size, iterations, seeds=(0, 1)):
    """z-scores of what N(0, 1) and independence expect of `normal((size,), seed, iteration,
    stream)` over these iterations, those of pairs with both seeds.

    Returns:
        {"z": dict from the name of a statistic to its z-score}.
    """
    length = min(LONGEST_SUM, iterations)
    rows = min(max(BLOCK // size, 1), length)
    sums = collections.defaultdict(lambda: np.zeros(2))
    chain = np.zeros(size)

    def add(scores):
        for name, score, variance in scores:
            sums[name] += score, variance

    for first in range(0, iterations, rows):
        draw = functools.partial(drawn, normal, size, rows)
        z = draw(seeds[0], first, 0)
        add(one_by_one(z))
        add(in_pairs(with_squares(z), draw, seeds, first))
        chain += z.sum(0, dtype="float64")
        if (first + rows) % length == 0:
            add(of_sums(chain / length**0.5))
            chain[:] = 0
    return {"z": {name: score / variance**0.5 for name, (score, variance) in sums.items()}}


def drawn(function, size, rows, seed, first, stream):
    """Array (rows, size) of `function((size,), seed, iteration, stream)` for iterations from
    `first` on."""
    return np.asarray(_drawn(function, size, rows, seed, first, stream))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 5))
def _drawn(function, size, rows, seed, first, stream):
    iterations = first + jax.numpy.arange(rows)
    return jax.vmap(lambda iteration: function((size,), seed, iteration, stream))(iterations)


def one_by_one(z):
    """Triples of name, sum less its expectation, and the sum's variance."""
    yield from moments(z.astype("float64"), "moment", POWERS)
    expected = z.size * ndtr(-5.0)
    yield "beyond -5", np.sum(z < -5) - expected, expected
    yield "beyond +5", np.sum(z > 5) - expected, expected


def in_pairs(both, draw, seeds, first):
    """Products of numbers whose keys differ by the offsets in the name."""
    later = {lag: with_squares(draw(seeds[0], first + lag, 0)) for lag in ITERATIONS}
    others = {
        "stream": with_squares(draw(seeds[0], first, 1)),
        "seed": with_squares(draw(seeds[1], first, 0)),
    }
    for lag in NEIGHBOURS:
        if lag < both.shape[-1]:
            yield from products(f"neighbour +{lag}", both[..., :-lag], both[..., lag:])
    for lag in ITERATIONS:
        yield from products(f"iteration +{lag}", both, later[lag])
    yield from products("iteration +1, neighbour +1", both[..., :-1], later[1][..., 1:])
    yield from products("iteration +1, neighbour -1", both[..., 1:], later[1][..., :-1])
    for name, other in others.items():
        yield from products(f"{name} +1", both, other)
        yield from products(f"iteration +1, {name} -1", other, later[1])


def of_sums(s):
    """Of sums over iterations, one a number of the variable, in units of their own deviation."""
    yield from moments(s, "sums, moment", (2, 3, 4))
    yield "sums, neighbour 1", s[1:] @ s[:-1], len(s) - 1


def moments(z, name, powers):
    sums = power_sums(z)
    for k in powers:
        yield f"{name} {k}", sums[k] - z.size * normal_moment(k), z.size * power_variance(k)


def with_squares(z):
    return np.stack([z, (z * z - 1) * np.float32(0.5**0.5)])


def products(name, x, y):
    plain, squares = np.einsum("kij,kij->k", x, y)
    yield name, plain, x[0].size
    yield f"{name}, squares", squares, x[0].size


# ----------------------------------------------------------------------------------- battery


def battery_rows(results, program):
    if program is None:
        print("The battery is left out: it takes --small-crush, and more time than --quick has.")
        return
    for name, blocks in STREAMS.items():
        results.run(small_crush, program, blocks, part="battery", words=name)


def small_crush(program, blocks):
    """p-values of SmallCrush on the words of `blocks()`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with contextlib.suppress(BrokenPipeError), subprocess.Popen([program], **pipes) as process:
        with contextlib.suppress(BrokenPipeError):
            for block in blocks():
                process.stdin.write(np.ascontiguousarray(block, "uint32"))
        lines = process.stdout.read().decode().splitlines()
    found = [line.split(maxsplit=2) for line in lines if line.startswith("p ")]
    if not found:
        raise SystemExit(f"Compile small_crush.c and give its path. Received: {program=!s}")
    return {"p": {name: float(p) for _, p, name in found}}


def words(shape, *key):
    return noise._words(*shape, *key)


def large_variable():
    for iteration in itertools.count():
        yield drawn(words, 16 * BLOCK, 1, 0, iteration, 0)


def bytes_reversed():
    return (block.byteswap() for block in large_variable())


def small_variable():
    for first in itertools.count(0, BLOCK):
        yield drawn(words, 10, BLOCK, 0, first, 0)


def both_hashes():
    for block in large_variable():
        yield np.stack([block, np.asarray(noise._mix(block))], -1)


def pcg64():
    generator = np.random.default_rng(0)
    while True:
        yield generator.integers(2**32, size=BLOCK, dtype="uint32")


def linear_congruential():
    """x ← 1664525 x + 1013904223 modulo 2^32."""
    factors = np.cumprod(np.full(BLOCK, 1664525), dtype="uint32")
    terms = np.uint32(1013904223) * np.cumsum(np.append(1, factors[:-1]), dtype="uint32")
    x = np.uint32(1)
    while True:
        block = factors * x + terms
        x = block[-1]
        yield block


def half_a_hash():
    """The counter through one round of the hash's two, once."""
    for first in itertools.count(0, BLOCK):
        block = np.arange(first, first + BLOCK).astype("uint32")
        block = (block ^ block >> np.uint32(16)) * np.uint32(0x7FEB352D)
        yield block ^ block >> np.uint32(15)


STREAMS = {
    "large variable": large_variable,
    "large variable, bytes reversed": bytes_reversed,
    "variable of 10, over iterations": small_variable,
    "words and their hashes in turn": both_hashes,
    "control: PCG64": pcg64,
    "bad control: linear congruential": linear_congruential,
    "bad control: half a hash": half_a_hash,
}


# -------------------------------------------------------------------------------------- page


def page(path):
    rows = Results(path).rows
    title, command, *rest = __doc__.strip().split("\n\n")
    parts = [f"# {title}", f"```\n{textwrap.dedent(command)}\n```", *rest]
    for part, section in {
        "time": time_section,
        "law": law_section,
        "draws": draws_section,
        "battery": battery_section,
    }.items():
        own = [row for row in rows if row["part"] == part]
        if own:
            parts.append(section(own).strip())
    return "\n\n".join(parts) + "\n"


def time_section(rows):
    hidden = ("part", "machine")
    shown = table([{k: v for k, v in row.items() if k not in hidden} for row in rows])
    return f"""
## Time

Nanoseconds a number for {rows[0]["numbers"]:,} float32 numbers at once, medians of turns in one
process, against `numpy.random.Generator.standard_normal`, which uses one core. Written to memory
that is there, as a step that updates weights in place has it (NumPy's `out=`), or to an array made
anew, whose pages the system has to find. Cores are processor time over time; load is the number of
processes that wanted the machine. One thread is `XLA_FLAGS={ONE_THREAD}`.

{shown}

{rows[0]["machine"]}."""


def law_section(rows):
    words = rows[0]["words"]
    names = [name for name in rows[0] if name not in ("part", "way", "stride", "words")]
    shown = table([{"": name} | {row["way"]: row[name] for row in rows} for name in names])
    return f"""
## Law

Over {words:,.0f} words{", all there are" if words == 2**32 else ""}. Moments less the normal's in
standard deviations of z^k (n draws show what is above a few / √n), even ones also relative to the
normal's. Shares beyond x, on either side, over the normal's, less 1. The distance is the largest
of the distribution functions.

{shown}"""


def draws_section(rows):
    uses = {f"{r['size']:,} x {r['iterations']:,}, seed {r['seed']}": r["z"] for r in rows}
    names = dict.fromkeys(name for z in uses.values() for name in z)
    lines = [{"z-score of": name} | {use: z.get(name) for use, z in uses.items()} for name in names]
    mean_squares = {use: mean_square(z.values()) for use, z in uses.items()}
    scores = {(name, use): score for use, z in uses.items() for name, score in z.items()}
    (name, use), largest = max(scores.items(), key=lambda item: abs(item[1]))
    return f"""
## Draws as used

Numbers of a variable x iterations, from `standard_normal` the fast way; z-scores of what
independent normal numbers expect: moments and tails, the mean product of pairs whose keys differ
by the offsets in the name (squares: of z² less its mean), and sums over {LONGEST_SUM:,} iterations,
or all. Sums are in units of their standard deviation, their neighbours those of one variable.

The largest of {len(scores)} is {largest:.2f} ({name}; {use}). Of as many independent ones it is
beyond {largest_expected(len(scores), 0.5):.2f} half of the time, beyond
{largest_expected(len(scores), 0.99):.2f} one time in a hundred. The mean of the squares of all is
{mean_square(scores.values()):.2f}, and 1 is expected, of one column with a standard deviation of
0.26, as moments go together. In the full study the small variable was drawn again with other seeds
after its first column had stood out in this mean.

{table([*lines, {"z-score of": "mean of squares"} | mean_squares])}"""


def mean_square(scores):
    return float(np.mean(np.square(list(scores))))


def largest_expected(count, probability):
    """Quantile of the largest |z| of `count` independent normal numbers."""
    return -ndtri((1 - probability ** (1 / count)) / 2)


def battery_section(rows):
    shown = table([battery_line(row["words"], row["p"]) for row in rows])
    return f"""
## Battery

TestU01's SmallCrush: p-values of {len(rows[0]["p"])} statistics. One below 1e-10 or above
1 - 1e-10 fails; outside [0.001, 0.999] is suspect, as one in 500 is by chance.

{shown}"""


def battery_line(words, p):
    distance = {name: min(value, 1 - value) for name, value in p.items()}
    return {
        "words": words,
        "smallest p": min(p.values()),
        "largest p": max(p.values()),
        "suspect": sum(1e-10 <= d < 1e-3 for d in distance.values()),
        "failed": sum(d < 1e-10 for d in distance.values()),
        "which": ", ".join(name for name, d in distance.items() if d < 1e-3),
    }


if __name__ == "__main__":
    main()
