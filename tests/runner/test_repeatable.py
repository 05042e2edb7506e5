"""On a GPU one run gives one result; without a GPU what is set for it can be looked at."""

import pytest
import torch

from shrinkbench.runner import Workspace

PLACES = (
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.utils.deterministic, "fill_uninitialized_memory"),
)


@pytest.fixture
def settings(monkeypatch):
    """Whatever is set is set back."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before = [getattr(place, name) for place, name in PLACES]
    for place, name in PLACES:
        setattr(place, name, True)
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(False)
    for (place, name), value in zip(PLACES, before, strict=True):
        setattr(place, name, value)


def found():
    return (
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", (True, True, True, False)), ("cuda", (False, False, False, True))]
)
def test_a_workspace_on_a_gpu_computes_in_float32_and_in_one_order(device, expected, settings, tmp_path):
    Workspace(root=tmp_path, device=device)
    assert found() == expected


def test_an_operation_without_a_repeatable_form_is_carried_out(settings, tmp_path):
    Workspace(root=tmp_path, device="cuda")
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
