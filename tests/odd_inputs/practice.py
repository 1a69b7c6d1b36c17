"""Recipes for `practice`."""

import matplotlib.pyplot as plt
import torch
from odd_inputs import Recipe

from metalearn_book.practice import which_method_when as ww

PARTS = ("practice",)
R = Recipe


def drawn(*shape, seed=0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


AXES = plt.figure().subplots()
W = "practice.which_method_when."
RECIPES = {
    W + "Cell": R(
        lambda: {
            "bed": "bed",
            "row": "a",
            "values": drawn(2, 9).double(),
            "lower_is_better": False,
            "transductive": False,
            "trained": True,
            "about": {},
        },
        kinds={"bed": "leave", "row": "leave"},
        use=lambda made: (made.evaluation().mean, made.minus(made).mean),
    ),
    W + "read_cells": R(lambda: {"folder": "."}),
    W + "pair_p_values": R(lambda: {"scores": drawn(3, 9)}),
    W + "holm": R(lambda: {"p": drawn(5)}),
    W + "rank_ranges": R(
        lambda: {"scores": drawn(3, 9), "higher_is_better": True, "alpha": 0.1}
    ),
    W + "mid_ranks": R(lambda: {"scores": drawn(3, 4), "higher_is_better": True}),
    W + "friedman": R(
        lambda: {"ranks": ww.mid_ranks(drawn(4, 5))},
        infinite=True,  # F where all beds agree
    ),
    W + "critical_difference": R(lambda: {"n_methods": 4, "n_beds": 5, "alpha": 0.05}),
    W + "cliques": R(lambda: {"mean_ranks": [1.0, 1.5, 3.0], "width": 1.0}),
    W + "draw_critical_difference": R(
        lambda: {
            "axes": AXES,
            "mean_ranks": {"a": 1.0, "b": 2.0},
            "width": 1.5,
        }
    ),
}
