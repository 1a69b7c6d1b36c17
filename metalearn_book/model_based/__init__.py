"Learners that adapt by one pass through a network: neural processes, and networks fitted to a prior."
