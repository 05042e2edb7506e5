"""What masks leave of weights that are computed, or scaled by data: counted by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shrinkbench import Masks, measure_size

X = torch.randn(1, 3, 8, 8)
PIXELS, KERNEL = 64, 9


class Modulated(nn.Module):
    """A convolution whose weight each example scales, and normalises (Karras et al. 2020)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.style = nn.Linear(27, 3)

    def forward(self, x):
        n = len(x)
        styles = self.style(x[:, :, :3, :3].reshape(n, -1))
        weight = self.weight[None] * styles.view(n, 1, 3, 1, 1)
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        planes = x.reshape(1, -1, *x.shape[2:])
        return F.conv2d(planes, weight.reshape(-1, 3, 3, 3), padding=1, groups=n).reshape(n, 4, *x.shape[2:])


class Divided(Modulated):
    def forward(self, x):
        weight = (self.weight / (1 + x.mean().square())).contiguous().clone()
        return F.conv2d(x, weight, padding=1)


def sparse(parameter):
    mask = torch.ones_like(parameter, dtype=torch.bool)
    mask.view(-1)[::2] = False
    return mask


def kept(module, *names, shape=(3, 8, 8)):
    masks = {name: sparse(module.get_parameter(name)) for name in names}
    return measure_size(module, shape, Masks(masks)).multiply_adds_kept


@pytest.mark.parametrize(("kind", "beside"), [(Modulated, 27 * 3), (Divided, 0)])
def test_a_weight_that_data_scale_keeps_its_zeros(kind, beside):
    module = kind()
    whole = 4 * 3 * KERNEL * PIXELS
    assert kept(module) == whole + beside
    assert kept(module, "weight") == whole // 2 + beside


class Least(nn.Module):
    """``min(w, t)``: of a masked entry it is zero where t is not negative, and t where it is."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.t = nn.Parameter(torch.tensor(-0.5))

    def forward(self, x):
        return F.linear(x, torch.minimum(self.weight, self.t))


class Rectified(Least):
    def forward(self, x):
        return F.linear(x, self.weight.relu())


class Added(Least):
    def forward(self, x):
        return F.linear(x, self.weight + self.t)


@pytest.mark.parametrize(("kind", "left"), [(Least, 24), (Rectified, 12), (Added, 24)])
def test_what_a_masked_entry_becomes_may_depend_on_the_sign_of_others(kind, left):
    assert kept(kind(), shape=(6,)) == 24
    assert kept(kind(), "weight", shape=(6,)) == left


class Features(nn.Module):
    """Data times constants are data: their zeros are not followed."""

    def __init__(self):
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(8))
        self.gain = nn.Parameter(torch.randn(3, 1, 1))
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.head = nn.Linear(8, 2, bias=False)

    def forward(self, x):
        x = self.conv(x * self.gain).mean((1, 2, 3))
        return self.head(x[:, None] * self.frequencies)


def test_zeros_of_data_are_not_followed():
    module = Features()
    whole = 3 * 4 * PIXELS + 8 * 2
    assert kept(module) == whole
    assert kept(module, "frequencies", "gain") == whole
    assert kept(module, "head.weight") == whole - 8
