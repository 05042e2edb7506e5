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


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)


class WholeNumbers(Plain):
    def forward(self, x):
        return self.layer(x).argmax(1) + (5 if x.shape[0] > 2 else 0)


class AlsoWholeNumbers(Plain):
    def forward(self, x):
        hidden = self.layer(x)
        return {"logits": hidden, "classes": hidden.argmax(1) + (5 if x.shape[0] > 2 else 0)}


class OfOne(Plain):
    def forward(self, x):
        return self.layer(x) * (2.0 if x.shape[0] == 1 else 1.0)


class OfMany(Plain):
    def forward(self, x):
        return self.layer(x) * (2.0 if x.shape[0] > 4 else 1.0)


class OfLargest(Plain):
    def forward(self, x):
        return self.layer(x) / float(x.abs().max())


class BesideFilled(Plain):
    def forward(self, x):
        hidden = self.layer(x) * (2.0 if x.shape[0] > 2 else 1.0)
        return torch.cat([hidden[:, :1] * 0 - 1e9, hidden[:, 1:]], 1)


WRONG = [WholeNumbers, AlsoWholeNumbers, OfOne, OfMany, OfLargest, BesideFilled]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", WRONG)
def test_a_trace_that_has_followed_one_way_is_not_kept(network, tmp_path):
    with pytest.raises(ShrinkbenchError, match="computes something else than the network"):
        export_program(network(), tmp_path / "net.ts", (4,))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pt2", ONNX])
def test_a_program_is_compared_for_one_example_too(ending, tmp_path):
    with pytest.raises(ShrinkbenchError, match=r"for 1 example\(s\)|does not take 1 example"):
        export_program(OfOne(), tmp_path / f"net{ending}", (4,))


class Noisy(Plain):
    def forward(self, x):
        return nn.functional.dropout(self.layer(x))


class Undefined(Plain):
    def forward(self, x):
        return self.layer(x).log()


class Fixed(Plain):
    def forward(self, x):
        return self.layer(x.view(2, 4))


UNFIT = [
    (Noisy, "other outputs each time"),
    (Undefined, "outputs hold NaN"),
    (Fixed, "does not take 3 example"),
]


@pytest.mark.parametrize(("network", "sentence"), UNFIT)
def test_a_network_that_nothing_can_be_compared_with_is_told(network, sentence, tmp_path):
    torch.manual_seed(0)
    with pytest.raises(ShrinkbenchError, match=sentence):
        export_program(network(), tmp_path / "net.ts", (4,))


class Filled(Plain):
    def forward(self, x):
        return self.layer(x).index_fill(1, torch.tensor([0]), float("-inf"))


def test_infinite_places_are_equal_to_themselves(tmp_path):
    export_program(Filled(), tmp_path / "net.ts", (4,))


@pytest.mark.slow
@SKIPPED
def test_whole_numbers_come_out_of_onnx_too(tmp_path):
    import onnxruntime

    class Both(Plain):
        def forward(self, x):
            hidden = self.layer(x)
            return {"logits": hidden, "classes": hidden.argmax(1)}

    module = Both().eval()
    export_program(module, tmp_path / "net.onnx", (4,))
    x = torch.randn(5, 4)
    logits, classes = onnxruntime.InferenceSession(str(tmp_path / "net.onnx")).run(None, {"input": x.numpy()})
    assert torch.equal(torch.from_numpy(classes), module(x)["classes"])
    assert torch.allclose(torch.from_numpy(logits), module(x)["logits"], atol=1e-5)


class Collecting(Two):
    """As what wraps a network: its own forward pass names no inputs."""

    def forward(self, *given, **named):
        return super().forward(*given, **named)


def test_inputs_that_a_forward_pass_collects(tmp_path):
    module = Collecting().eval()
    export_program(module, tmp_path / "net.pt2", (IMAGE, BESIDE))
    program, three = torch.export.load(tmp_path / "net.pt2").module(), (torch.randn(3, 6), torch.randn(3, 3))
    torch.testing.assert_close(program(*three)["squares"], module(*three)["squares"])


def test_named_inputs_that_a_forward_pass_collects(tmp_path):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x, **named):
            return self.first(x) - self.second(named["b"] * named["a"])

    module, x, a, b = Named().eval(), *(torch.randn(2, 4) for _ in range(3))
    export_program(module, tmp_path / "net.pt2", {"x": x, "a": a, "b": b})
    program, given = torch.export.load(tmp_path / "net.pt2").module(), {"x": x[:1], "b": b[:1], "a": a[:1]}
    torch.testing.assert_close(program(**given), module(**given))
    export_program(module, tmp_path / "mixed.pt2", Inputs((x,), {"a": a, "b": b}))
    program = torch.export.load(tmp_path / "mixed.pt2").module()
    torch.testing.assert_close(program(x[:1], a=a[:1], b=b[:1]), module(x[:1], a=a[:1], b=b[:1]))
