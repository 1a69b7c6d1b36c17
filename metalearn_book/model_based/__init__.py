"Learners that adapt by one pass through a network: neural processes."
