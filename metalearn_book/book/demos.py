"""Demonstrations of the case studies on small data that come with the package: what
`metalearn-book demo` runs."""

from __future__ import annotations

import difflib
import importlib

from ..data.arguments import shown

__all__ = ["DEMOS", "run_demo"]

#: name of a case study -> module and function, which prints and needs no files
DEMOS = {
    "relations": "metalearn_book.case_studies.relations:_demo",
    "sentiment": "metalearn_book.case_studies.entity_sentiment:demo",
    "alerts": "metalearn_book.case_studies.alert_monitor:demo",
    "questions": "metalearn_book.case_studies.question_answerer:_demo",
    "personal-data": "metalearn_book.case_studies.masker:demo",
    "service": "metalearn_book.case_studies.service_assistant:_demo",
}


def run_demo(name: str) -> None:
    """Run the demonstration of a case study. ValueError, with the nearest name, for one
    that is not there."""
    if not isinstance(name, str) or name not in DEMOS:
        near = difflib.get_close_matches(str(name), list(DEMOS), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"there is no demonstration {shown(name)}.{hint} There are: "
            f"{', '.join(DEMOS)}"
        )
    module, _, function = DEMOS[name].partition(":")
    getattr(importlib.import_module(module), function)()
