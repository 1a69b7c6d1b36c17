"""Recipes for `services` of `language_models`."""

from odd_inputs import Recipe

from .meta_gpt2 import batch, model

R = Recipe
S = "language_models.services."
RECIPES = {
    S + "in_context_nats": R(
        lambda: {"model": model(), "tasks": batch(), "context": 30},
        kinds={"tasks": "leave"},
    ),
    S + "service_groups": R(lambda: {"part": "train"}, fails=FileNotFoundError),
    S + "topic_groups": R(lambda: {"part": "train"}, fails=FileNotFoundError),
}
