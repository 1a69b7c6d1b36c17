"""Meta-learning for language models: the code of the book *Learning to Learn with Language Models*.

Parts are imported when they are first used: `import metalearn_book` is quick and does not import torch.
"""
__version__ = "0.1.0"

import importlib as _importlib
import pkgutil as _pkgutil

_parts = sorted(m.name for m in _pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def __getattr__(name: str):
    "Import a part, such as `metalearn_book.optimization`, on first use."
    if name in _parts:
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its parts are {', '.join(_parts)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_parts})
