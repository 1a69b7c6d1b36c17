"""The end of the project: a learner labels texts by names that the user gives."""

import pytest
from torch import nn

from metalearn_book.foundations.learning_to_learn import (
    FeatureWeights,
    LearnedPrototypes,
)
from metalearn_book.foundations.project import classify


def test_classify_uses_names_and_unequal_numbers_of_examples():
    learner = LearnedPrototypes(FeatureWeights(512))
    examples = {
        "plants": ["water the flowers", "the plants are dry"],
        "cat": ["feed the cat"],
    }
    got = classify(
        learner, examples, ["give the cat some food", "water my flowers"], 512
    )
    assert [name for name, _ in got] == ["cat", "plants"] and all(
        0.5 < p <= 1 for _, p in got
    )


@pytest.mark.parametrize(
    "examples", [{"one": ["a"]}, {"one": ["a"], "two": []}, {"one": "a", "two": ["b"]}]
)
def test_classify_asks_for_two_names_with_texts(examples):
    with pytest.raises(ValueError, match=r"at least two names|examples\['\w+'\] must"):
        classify(LearnedPrototypes(nn.Identity()), examples, ["a"], 32)
