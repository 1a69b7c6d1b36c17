"""What the search for odd inputs leaves out, and allows. Both may only shrink."""

#: pieces of an engine, called by it in the middle of its work: no odd calls are made
NOT_TRIED = {
    "foundations.inner_loop.InChunks",
    "foundations.inner_loop.InnerStep",
    "foundations.inner_loop.Steps",
    "foundations.self_check.CheckedModel",
    "foundations.self_check.other_padding",
    "foundations.self_check.own_prediction",
    "foundations.self_check.quiet",
    "foundations.task_models.LaidOut",
    "foundations.task_models.answers",
    "foundations.task_models.call_with",
    "foundations.task_models.choose_masks",
    "foundations.task_models.example_texts",
    "foundations.task_models.explain_arguments",
    "foundations.task_models.predict_one",
    "foundations.task_models.prepare_one",
    "foundations.task_models.run_stack",
    "foundations.training.Run",
    "foundations.training.resume",
    "foundations.verification.Witnesses",
    "foundations.verification.check_masks",
    "foundations.verification.check_mode",
    "foundations.verification.check_predictions",
    "foundations.verification.difference_error",
    "foundations.verification.engines_set",
    "foundations.verification.gradient_of",
    "foundations.verification.plain_prediction",
    "foundations.verification.plain_task",
    "optimization.implicit.forward_product",
}
#: the share of all calls, at most, that have a value of another Python type and get
#: Python's own TypeError or AttributeError: 3,700 of the first 10,460
IN_PYTHONS_WORDS = 3700 / 10_460
