"Tasks, the bilevel problem, the inner-loop engine, training, encoders, estimators."
