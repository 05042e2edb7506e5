"""The classifier layer is found in every family of torchvision by what the network does."""

import pytest
import torchvision

from shrinkbench.network.probe import classifier_weights

FAST = {
    "resnet18": "fc",
    "mobilenet_v3_small": "classifier.3",
    "squeezenet1_1": "classifier.1",
    "densenet121": "classifier",
    "vit_b_16": "heads.head",
}
SLOW = {
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "efficientnet_b0": "classifier.1",
    "efficientnet_v2_s": "classifier.1",
    "googlenet": "fc",
    "inception_v3": "fc",
    "maxvit_t": "classifier.5",
    "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "regnet_y_400mf": "fc",
    "resnext50_32x4d": "fc",
    "shufflenet_v2_x0_5": "fc",
    "swin_t": "head",
    "swin_v2_t": "head",
    "vgg11_bn": "classifier.6",
    "wide_resnet50_2": "fc",
}


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_classifier_is_found(name):
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    module = torchvision.models.get_model(name, weights=None, **options)
    size = 299 if name == "inception_v3" else 224
    layer = (FAST | SLOW)[name]
    expected = {f"{layer}.{name}" for name, _ in module.get_submodule(layer).named_parameters()}
    assert classifier_weights(module, (3, size, size)) == expected
