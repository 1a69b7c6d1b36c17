"""Recipes for `remote_models` of `language_models`."""

from odd_inputs import Recipe

PARTS = ("language_models",)
R = Recipe


M = "language_models.remote_models."
RECIPES = {
    M + "Usage": R(
        lambda: {
            "requests": 2,
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "uncounted": 0,
            "seconds": 0.1,
        },
        use=lambda made: made.tokens_for(2),
    ),
    M + "RemoteModel": R(
        lambda: {
            "url": "http://127.0.0.1:9/v1",
            "name": "m",
            "timeout": 1.0,
            "retries": 0,
            "key_variable": "NO_SUCH_KEY",
        },
        use=repr,
        kinds=dict.fromkeys(("url", "name", "key_variable"), "text"),
    ),
    M + "match_label": R(
        lambda: {"text": "yes, it is", "labels": ["yes", "no"]}, kinds={"text": "text"}
    ),
    M + "model_at": R(
        lambda: {"address": "openai:http://127.0.0.1:9/v1#m", "key_variable": None},
        use=repr,
        kinds=dict.fromkeys(("address", "key_variable"), "text"),
    ),
}
