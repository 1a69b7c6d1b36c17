"Names the functions that the grader asks for."

from my_code import backward as gradient  # noqa: F401
from my_code import half_squares as loss  # noqa: F401
from my_code import first_order, hessian_vector, inner_loop  # noqa: F401
from my_code import meta_gradient, outer_slope, rate_gradient  # noqa: F401
