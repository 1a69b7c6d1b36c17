"""Meta-learning for language models: the code of the book
*Learning to Learn with Language Models*.

What is used most can be imported from here: `from metalearn_book import MAML`.
Everything is imported when it is first used: `import metalearn_book` is quick and
imports no torch.
"""

__version__ = "0.2.0"

import importlib as _importlib
import pkgutil as _pkgutil

_NAMES = {
    "case_studies.few_shot_classifier": ("FewShotClassifier",),
    "case_studies.few_shot_tagger": ("FewShotTagger", "TaggerStart"),
    "data": ("dataset_names", "describe", "load_dataset_by_name"),
    "foundations.bilevel": ("cross_entropy_per_task", "mse_per_task"),
    "foundations.encoders": ("load_encoder",),
    "foundations.fine_tuning": ("fine_tune",),
    "foundations.inner_loop": ("InnerLoop",),
    "foundations.task_models": ("make_differentiable",),
    "foundations.tasks": ("ClassTasks", "Examples", "SinusoidTasks", "TaskBatch"),
    "foundations.training": (
        "Checkpoint",
        "Update",
        "Validation",
        "evaluate",
        "meta_train",
        "paired_difference",
    ),
    "metric.closed_form": ("NewtonLogisticHead", "RidgeHead", "SVMHead"),
    "metric.prototypes": ("ProtoNet",),
    "optimization.implicit": ("ImplicitMAML",),
    "optimization.latent": ("LEO",),
    "optimization.learned_optimizer": ("LearnToOptimize",),
    "optimization.maml": ("MAML",),
    "optimization.reptile": ("Reptile",),
    "optimization.what_to_adapt": ("ANIL", "BOIL", "MAMLpp", "MetaSGD"),
}
_home = {name: module for module, names in _NAMES.items() for name in names}
_modules = _pkgutil.iter_modules(__path__)
_parts = sorted(m.name for m in _modules if not m.name.startswith("_"))
__all__ = sorted(_home)  # noqa: PLE0605


def __getattr__(name: str):
    "Import a part, such as `metalearn_book.optimization`, or one of the names above."
    if name in _parts:
        return _importlib.import_module(f"{__name__}.{name}")
    if name in _home:
        return getattr(_importlib.import_module(f"{__name__}.{_home[name]}"), name)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}; its parts are "
        f"{', '.join(_parts)}, and it hands on {', '.join(sorted(_home))}"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *_parts, *_home})
