"""Sentences that are true: a claim is checked where it is written."""

from __future__ import annotations

import math

from .display import Displayable, show_text
from .scale import at_least, current_scale

__all__ = ["FalseClaim", "claim"]


class FalseClaim(AssertionError):
    "A sentence of the book that its own numbers contradict."


def _truth(holds) -> bool:
    """`holds` as a bool. ValueError for what is no single truth value, so that a NaN or
    a forgotten call is not taken for a yes."""
    value = holds.item() if getattr(holds, "ndim", None) == 0 else holds
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return bool(value)
    raise ValueError(
        f"a claim needs True or False, got {holds!r}; compare first, such as "
        "claim('A is above B', a.mean - a.ci95 > b.mean)"
    )


def claim(sentence: str, holds: bool, *, scale: str = "book", **numbers) -> Displayable:
    """State a sentence that `holds`, with the numbers that it quotes: `claim("Reptile
    is ahead of MAML after ten steps, by {lead:%}", lead.mean > lead.ci95, lead=lead)`.

    sentence: as for `show_text`. holds: the comparison that the sentence states.
    scale: the smallest scale at which it is checked; below, where runs are too short to
    show anything, the sentence is shown with a remark. numbers: what the sentence
    quotes, by name. FalseClaim (an AssertionError) if it does not hold; ValueError if
    `holds` is no truth value or a quoted number is NaN.
    """
    text = str(show_text(sentence, **numbers))
    true = _truth(holds)
    if not at_least(scale):
        note = f"{text} *(Not checked at scale {current_scale()}.)*"
        return Displayable(text_markdown=note, text_plain=note)
    for name, value in numbers.items():
        mean = getattr(value, "mean", value)
        mean = mean.item() if getattr(mean, "ndim", None) == 0 else mean
        if isinstance(mean, float) and math.isnan(mean):
            raise ValueError(f"the claim {text!r} quotes {name}, which is not a number")
    if not true:
        raise FalseClaim(f"this sentence is not true of its own numbers: {text}")
    return Displayable(text_markdown=text, text_plain=text)
