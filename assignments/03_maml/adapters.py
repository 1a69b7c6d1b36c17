"""Hand in code that you have laid out as you like: put this file, your .py files and,
if you want, your notebook into one folder, and name your functions here. It runs after
the notebook's graded cells. Names that you don't mention stay as they are.
"""

# from my_code import my_sinusoid_tasks as sinusoid_tasks
# from my_code import my_adapt as adapt
# from my_code import my_maml_gradient as maml_gradient
# from my_code import my_fomaml_gradient as fomaml_gradient
# from my_code import my_reptile_direction as reptile_direction
# from my_code import my_meta_train as meta_train
# from my_code import my_quadratic_directions as quadratic_directions
# from my_code import my_first_wrong_rate as first_wrong_rate
# from my_code import my_interval as interval
# from my_code import my_paired as paired
# from my_code import my_diagnose as diagnose
