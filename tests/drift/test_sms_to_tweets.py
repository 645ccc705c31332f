"""Drift on real texts: false alarms on SMS, and how many requests show that they became tweets."""

import csv

import numpy as np
import pytest
from scipy import stats

import bertjax
from bertjax.drift.comparison import compare, least_requests
from bertjax.drift.reference import ask_model
from bertjax.drift.samples import Sample
from bertjax.drift.settings import MOST_REQUESTS

LEVEL, DRAWS, PERMUTATIONS = 0.05, 200, 999
FITTED, TESTS = 1000, 11


def read(path, column):
    with path.open(encoding="utf-8", newline="") as file:
        return [row[column] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


@pytest.fixture(scope="module")
def lines(shared_data):
    """What a server logs of SMS that it was not fitted to, and of tweets."""
    folder = shared_data / "classification"
    labels, texts = (read(folder / "sms_spam.tsv", column) for column in (0, 1))
    order = np.random.default_rng(0).permutation(len(texts))
    rows = [{"text": texts[number], "label": labels[number]} for number in order]
    model = bertjax.load(shared_data / "weights" / "bert_tiny_mlm")
    fitted = bertjax.finetune(model, "classification", rows[:FITTED], epochs=2).model

    def ask(texts):
        asked = []
        for start in range(0, len(texts), MOST_REQUESTS):
            part = [(str(number), (text,)) for number, text in enumerate(texts) if text][
                start : start + MOST_REQUESTS
            ]
            [sample] = ask_model(fitted, {"texts": part}, name="sms")
            asked += sample.lines
        return asked

    tweets = read(folder / "vader_tweets.tsv", 2)
    return ask([row["text"] for row in rows[FITTED:]]), ask(tweets)


def sample(lines):
    return Sample("some", "sms", lines[0]["fingerprint"], len(lines), None, None, lines)


def draw(random, lines, count):
    return [lines[number] for number in random.permutation(len(lines))[:count]]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(500, 500), (1000, 100)])
def test_requests_of_one_kind_seldom_alarm(lines, sizes):
    sms, _ = lines
    alarms, named = 0, []
    for seed in range(DRAWS):
        drawn = draw(np.random.default_rng(seed), sms, sum(sizes))
        parts = sample(drawn[: sizes[0]]), sample(drawn[sizes[0] :])
        moved = compare(*parts, LEVEL, PERMUTATIONS, seed).moved
        alarms += bool(moved)
        named += moved
    print(f"\nSMS against SMS, {sizes[0]} against {sizes[1]}: {alarms} of {DRAWS} alarms; {named}")
    assert alarms <= stats.binom.ppf(0.999, DRAWS, LEVEL)


@pytest.mark.slow
def test_tweets_among_sms_are_seen_the_sooner_the_more_they_are(lines):
    sms, tweets = lines
    draws, power = 20, {}
    counts = (60, 200, 1000)
    print("\nshare of tweets  " + "  ".join(f"{count:>5}" for count in counts) + "  requests")
    for share in (0.1, 0.25, 1.0):
        for count in counts:
            seen = 0
            for seed in range(draws):
                random = np.random.default_rng(seed)
                drawn = draw(random, sms, 1000 + count)
                others = draw(random, tweets, int(random.binomial(count, share)))
                later = [*others, *drawn[1000 : 1000 + count - len(others)]]
                parts = sample(drawn[:1000]), sample(later)
                seen += bool(compare(*parts, LEVEL, PERMUTATIONS, seed).moved)
            power[share, count] = seen / draws
        row = "  ".join(f"{power[share, count]:>5.2f}" for count in counts)
        print(f"{share:>15.0%}  {row}")
    least = 1 / (1 / least_requests(TESTS, LEVEL) - 1 / 1000)
    print(f"requests that are needed beside 1000: {int(np.ceil(least))}")
    assert power[1.0, 60] >= 0.9
    assert power[0.25, 1000] > power[0.25, 60] + 0.2
