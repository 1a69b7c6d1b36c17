"Right answers under other names."

import numpy as np


def forward(theta, x):
    h = np.tanh(x @ theta["W"] + theta["b"])
    return h, h @ theta["v"] + theta["c"]


def add(theta, other, scale=1.0):
    return {k: theta[k] + scale * other[k] for k in theta}


def dot(a, b):
    return sum(float(np.sum(a[k] * b[k])) for k in a)


def half_squares(theta, x, y):
    return 0.5 * np.mean((forward(theta, x)[1] - y) ** 2)


def backward(theta, x, y):
    h, f = forward(theta, x)
    r = (f - y) / len(y)
    g = np.outer(r, theta["v"]) * (1 - h**2)
    return {"W": x.T @ g, "b": g.sum(0), "v": h.T @ r, "c": r.sum()}


def inner_loop(theta, support, inner_lr, steps):
    path = [theta]
    for _ in range(steps):
        path.append(add(path[-1], backward(path[-1], *support), -inner_lr))
    return path


def hessian_vector(theta, x, y, u):
    eps = 1e-5
    up, down = (backward(add(theta, u, s * eps), x, y) for s in (1, -1))
    return {k: (up[k] - down[k]) / (2 * eps) for k in up}


def back(theta, support, query, inner_lr, steps):
    path = inner_loop(theta, support, inner_lr, steps)
    u, slope = backward(path[-1], *query), 0.0
    for before in reversed(path[:-1]):
        slope -= dot(u, backward(before, *support))
        u = add(u, hessian_vector(before, *support, u), -inner_lr)
    return u, slope


def meta_gradient(*task):
    return back(*task)[0]


def first_order(theta, support, query, inner_lr, steps):
    return backward(inner_loop(theta, support, inner_lr, steps)[-1], *query)


def outer_slope(theta, direction, support, query, inner_lr, steps, eps):
    outer = lambda s: half_squares(
        inner_loop(add(theta, direction, s * eps), support, inner_lr, steps)[-1], *query
    )
    return (outer(1) - outer(-1)) / (2 * eps)


def rate_gradient(*task):
    return back(*task)[1]
