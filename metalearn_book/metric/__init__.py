"Learners without an inner step: prototypes, and heads with a closed form."
