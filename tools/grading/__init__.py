"""The grader of the assignments: student code answers calls in a closed child process,
and the parent compares. See assignments/README.md for what it protects against."""
