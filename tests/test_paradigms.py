"""Distillation: its gradient, its zero, and what it refuses."""

import pytest
import torch

from metalearn_book.foundations.paradigms import distillation_loss


@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.0])
def test_gradient_of_distillation_is_a_difference_of_softmaxes(temperature):
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 6, generator=g, dtype=torch.float64)
    student.requires_grad_(), teacher.requires_grad_()
    distillation_loss(student, teacher, temperature).backward()
    want = (
        temperature
        * ((student / temperature).softmax(-1) - (teacher / temperature).softmax(-1))
        / 4
    )
    assert (
        torch.allclose(student.grad, want.detach(), atol=1e-12) and teacher.grad is None
    )


def test_distillation_is_zero_for_equal_models_and_checks_its_input():
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert (
        abs(distillation_loss(z + 7.0, z).item()) < 1e-5
    )  # a constant shift changes no probability
    with pytest.raises(ValueError, match="must agree"):
        distillation_loss(z, z[:, :3])
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        distillation_loss(z, z, 0.0)


def test_distillation_refuses_what_has_no_mean():
    z = torch.zeros(2, 3)
    for bad in (float("nan"), float("inf")):
        for given in ((z + bad, z), (z, z + bad)):
            with pytest.raises(ValueError, match="_logits must hold finite numbers"):
                distillation_loss(*given)
    for shape in ((0, 3), (2, 0)):
        with pytest.raises(ValueError, match="hold no example"):
            distillation_loss(torch.zeros(shape), torch.zeros(shape))
