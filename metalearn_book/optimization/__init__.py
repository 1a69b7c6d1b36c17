"Learners that adapt by gradient steps: the MAML family, Reptile, implicit gradients, LEO."
