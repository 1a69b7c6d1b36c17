"""Recipes for `test_time_training` of `language_models`."""

from odd_inputs import Recipe
from odd_inputs.dynamic_evaluation import model, tokenizer

PARTS = ("language_models",)
R = Recipe
PAIRS = [("ab>", "b"), ("cd>", "d"), ("ef>", "f")]

M = "language_models.test_time_training."
RECIPES = {
    M + "in_front": R(
        lambda: {"pairs": PAIRS, "prompt": "gh>", "between": ";"},
        kinds={"prompt": "text"},
    ),
    M + "leave_one_out": R(lambda: {"pairs": PAIRS, "n_orders": 2, "between": ";"}),
    M + "vote": R(lambda: {"answers": ["a", "b", "a"]}),
    M + "View": R(
        lambda: {"change": str.swapcase, "back": str.swapcase},
        use=lambda view: view.of(PAIRS),
    ),
    M + "ThrowAwayLoRA": R(
        lambda: {
            "model": model(),
            "tokenizer": tokenizer(),
            "rank": 2,
            "length": 24,
            "inner_lr": 0.01,
            "inner_steps": 1,
        },
        use=lambda made: made.answer(PAIRS, ["gh>"], n_tokens=1),
        kinds={"tokenizer": "leave"},
    ),
}
