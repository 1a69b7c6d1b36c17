"""Hand in code that you have laid out as you like: put this file, your .py files and,
if you want, your notebook into one folder, and name your functions here. It runs after
the notebook's graded cells. Names that you don't mention stay as they are.

    from my_network import squared_error as loss
    from my_network import backward as gradient
"""

# from my_code import my_loss as loss
# from my_code import my_gradient as gradient
# from my_code import my_inner_loop as inner_loop
# from my_code import my_hessian_vector as hessian_vector
# from my_code import my_meta_gradient as meta_gradient
# from my_code import my_first_order as first_order
# from my_code import my_outer_slope as outer_slope
# from my_code import my_rate_gradient as rate_gradient
