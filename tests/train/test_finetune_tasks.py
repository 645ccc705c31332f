"""Every task learns, predicts and is scored."""

import json
import random

import pytest

from bertjax.tasks.data_config import DataConfig
from bertjax.training.budget import BudgetConfig
from bertjax.training.finetune_config import ScoringConfig
from tests.train.finetune_runs import WORDS, make_config, run, write_classes

pytestmark = pytest.mark.usefixtures("known_rate")


def write_tags(path):
    draw = random.Random(2)
    sentences = []
    for _ in range(60):
        words = draw.choices(WORDS, k=6)
        sentences.append("\n".join(f"{w}\t{'B-X' if w == 'his' else 'O'}" for w in words))
    path.write_text("\n\n".join(sentences) + "\n")


def write_questions(path):
    draw = random.Random(3)
    paragraphs = []
    for number in range(40):
        words = draw.choices([word for word in WORDS if word != "his"], k=7)
        words[draw.randrange(7)] = "his"
        context = " ".join(words)
        answers = [{"text": "his", "answer_start": f" {context}".index(" his")}]
        question = {"id": str(number), "question": "is it", "answers": answers}
        if number % 4 == 0:
            question |= {"answers": [], "is_impossible": True}
        paragraphs.append({"context": context, "qas": [question]})
    content = {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(content))


def write_choices(path):
    draw = random.Random(4)
    lines = []
    for number in range(40):
        choices = [draw.choice(WORDS[:6]) for _ in range(2 + number % 2)]
        label = draw.randrange(len(choices))
        choices[label] = "his"
        lines.append(
            {"context": " ".join(draw.choices(WORDS, k=3)), "choices": choices, "label": label}
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_sets(path):
    classes = path.with_name("some.tsv")
    rows = [line.split("\t") for line in write_classes(classes).read_text().splitlines()[1:]]
    path.write_text(
        "".join(json.dumps({"text": text, "labels": [label]}) + "\n" for label, text in rows)
    )


def write_numbers(path):
    classes = path.with_name("some.tsv")
    rows = [line.split("\t") for line in write_classes(classes).read_text().splitlines()[1:]]
    path.write_text(
        "text,score\n"
        + "".join(f"{text},{0.5 if label == 'cat' else -1}\n" for label, text in rows)
    )


@pytest.mark.parametrize(
    ("task", "write", "name", "score", "least"),
    [
        ("tokens", write_tags, "tags.conll", "f1", 0.9),
        pytest.param(
            "question-answering",
            write_questions,
            "questions.json",
            "f1",
            60,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "multiple-choice",
            write_choices,
            "choices.jsonl",
            "accuracy",
            0.9,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "multi-label", write_sets, "sets.jsonl", "micro_f1", 0.9, marks=pytest.mark.slow
        ),
        pytest.param(
            "regression", write_numbers, "numbers.csv", "pearson", 0.9, marks=pytest.mark.slow
        ),
    ],
)
def test_every_task_learns_and_predicts(
    tmp_path, pretrained, bertjax_command, task, write, name, score, least
):
    write(tmp_path / name)
    data = DataConfig(
        train=[str(tmp_path / name)], validation=[str(tmp_path / name)], test_share=0.2
    )
    config = make_config(
        tmp_path,
        pretrained,
        task,
        data=data,
        budget=BudgetConfig(steps=60),
        batch_size=24,
        scoring=ScoringConfig(every_epochs=10.0),
    )
    assert run(config) == 0
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert results["validation"][score] > least
    assert list((tmp_path / "run" / "predictions").glob("predictions.*"))

    model = str(tmp_path / "run" / "model")
    code, _, _ = bertjax_command(
        "predict", "--model", model, "--input", tmp_path / name, "--output", tmp_path / "out"
    )
    assert code == 0
    assert list((tmp_path / "out").glob("predictions.*"))
    code, out, _ = bertjax_command(
        "evaluate", "--model", model, "--data", tmp_path / name, "--resamples", "3", "--json"
    )
    assert json.loads(out)["scores"][score] == pytest.approx(results["validation"][score])
    if task == "tokens":  # offsets are of the line as it was given
        code, out, _ = bertjax_command("predict", "--model", model, stdin=b"  in \this  a \r\n")
        found = json.loads(out)["entities"]
        assert found == [{"type": "X", "start": 6, "end": 9, "text": "his"}]
