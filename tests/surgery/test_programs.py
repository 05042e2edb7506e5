"""Programs of networks that take several inputs, named ones and trees give the same outputs when read again."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
import transformers
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import Inputs
from shrinkbench.surgery.export import export_program

NO_ONNX = any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime"))
SKIPPED = pytest.mark.skipif(NO_ONNX, reason="the extra 'onnx' is not installed")
ONNX = pytest.param(".onnx", marks=[SKIPPED, pytest.mark.slow])
ENDINGS = [pytest.param(".pt2", marks=pytest.mark.slow), ".ts", ONNX]


class Two(nn.Module):
    """Images and numbers beside them, whose sum is classified; two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.beside = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, image, beside):
        hidden = self.image(image) + self.beside(beside)
        return {"logits": hidden, "squares": hidden**2}


class Nested(Two):
    def forward(self, both, *, scale):
        image, beside = both["pair"]
        return self.image(image) * scale + self.beside(beside)


IMAGE, BESIDE, SCALE = torch.randn(2, 6), torch.randn(2, 3), torch.tensor([[0.3], [2.5]])


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "example", [(IMAGE, BESIDE), {"beside": BESIDE, "image": IMAGE}], ids=["by place", "by name"]
)
def test_several_inputs(ending, example, tmp_path):
    module = Two().eval()
    export_program(module, tmp_path / f"net{ending}", example)
    three = (torch.randn(3, 6), torch.randn(3, 3))
    named = dict(zip(("image", "beside"), three, strict=True))
    expected = module(*three)["logits"]
    if ending == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
        found = torch.from_numpy(session.run(None, {name: x.numpy() for name, x in named.items()})[0])
    else:
        path = tmp_path / f"net{ending}"
        program = torch.jit.load(path) if ending == ".ts" else torch.export.load(path).module()
        found = (program(*three) if isinstance(example, tuple) else program(**named))["logits"]
    assert torch.allclose(found, expected, atol=1e-5)


BOTH = Inputs(({"pair": (IMAGE, BESIDE)},), {"scale": SCALE})


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pt2", ONNX])
def test_trees_and_arguments_of_both_kinds(ending, tmp_path):
    export_program(Nested(), tmp_path / f"net{ending}", BOTH)
    assert [path.name for path in tmp_path.iterdir()] == [f"net{ending}"]


def test_what_a_trace_cannot_take_is_refused(tmp_path):
    with pytest.raises(ShrinkbenchError, match=r"both \(\(\{pair: .*\) and \{scale: float32 2x1\}\)"):
        export_program(Nested(), tmp_path / "net.ts", BOTH)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_network_of_hugging_face(ending, tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=13, max_position_embeddings=16, num_labels=3, **sizes)
    module = transformers.BertForSequenceClassification(config).eval()
    tokens = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]])
    export_program(
        module, tmp_path / f"net{ending}", {"input_ids": tokens, "attention_mask": (tokens > 0).long()}
    )
    assert (tmp_path / f"net{ending}").stat().st_size > 1000
