"""Weights from a file, from a card's entry by name, or from torchvision's enums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from shrinkbench.errors import InputError, ShrinkbenchError, some_of
from shrinkbench.files import (
    cache_folder,
    fetch,
    git_blob_of,
    in_home,
    is_file,
    parse_json,
    read_file,
    sha256_of,
)
from shrinkbench.models.card import MODELS, ModelCard, WeightsEntry
from shrinkbench.models.hugging_face import with_names_of_today
from shrinkbench.models.shards import digest_of_weights
from shrinkbench.models.state_dicts import (
    EXTRA_STATE,
    StateDict,
    read_entries,
    with_masks_applied,
    with_names_of,
)
from shrinkbench.spec import Normalisation

_SHOWN_BY = "`shrinkbench describe MODEL`"
# Heads that only training uses; the networks of torchvision's GoogLeNet and Inception are built without.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file of weights: where it lies, what it is (SHA-256) and, where it is a public one, its entry."""

    path: Path
    sha256: str
    entry: WeightsEntry | None

    @property
    def name(self) -> str:
        """Name of the entry, or of the file."""
        return self.entry.name if self.entry else self.path.name

    @property
    def normalisation(self) -> Normalisation | None:
        """What the weights were trained with, where that is known; it overrides the dataset's."""
        return self.entry.normalisation if self.entry and self.entry.normalisation.mean else None


def identify(path: Path, *, card: ModelCard | None = None) -> WeightsEntry | None:
    """Return the entry whose SHA-256 the file has, of ``card`` or of any registered network.

    ``None`` for a file that is not known.
    """
    return _entry_of(path, sha256_of(path), card)


def locate_weights(source: str | Path, *, card: ModelCard | None = None) -> WeightsFile:
    """Find ``source`` without loading it: the name of an entry of ``card``, ``DEFAULT``, or a path.

    An entry's file is downloaded where the cache does not hold it.
    """
    entry = _find_named(str(source), card)
    if entry is not None:
        beside = Path(entry.file or "")
        if beside.is_absolute() and is_file(beside):  # of a folder that the network is named by
            return WeightsFile(path=beside, sha256=digest_of_weights(beside), entry=entry)
        if entry.url is None:
            raise ShrinkbenchError(f"the weights '{entry.name}' have no download; pass the path of their file")
        path = cache_folder() / "weights" / (entry.file or entry.url.rsplit("/", 1)[-1])
        instead = "pass its path with --weights FILE"
        fetch(entry.url, path, sha256=entry.sha256, git_blob=entry.git_blob, instead=instead)
        return WeightsFile(path=path, sha256=sha256_of(path), entry=entry)
    path = in_home(source)
    if not is_file(path):
        known = some_of((e.name for e in known_weights(card)), str(source), more=_SHOWN_BY) if card else ""
        hint = f"; {card.name} also knows the weights {known}" if card and known != "none" else ""
        raise InputError(f"there is no weights file {source}; check the path{hint}")
    digest = digest_of_weights(path)
    known_as = _entry_of(path, digest, card) or _entry_beside(path, digest)
    return WeightsFile(path=path, sha256=digest, entry=known_as)


def load_weights(
    module: nn.Module,
    source: str | Path,
    *,
    card: ModelCard | None = None,
    sha256: str | None = None,
    entry: str | None = None,
) -> WeightsFile:
    """Load ``source`` (see ``locate_weights``) into ``module`` and say which file that was.

    What is loaded are the bytes that were hashed, and where it is given they are those of ``sha256``. ``entry``
    names the entry or prefix that is meant, as for :func:`shrinkbench.models.read_state_dict`; a prefix under
    which the file holds the whole network, such as Lightning's ``model.``, is found.

    Every parameter and buffer must be there with its shape; only batch counters, which old checkpoints lack,
    may be missing, and what is not of the prefix of the card's ``features_of``. Raises ``ShrinkbenchError``
    naming the first differences where the file is for another network, or the first tensor that is not finite.
    """
    file = locate_weights(source, card=card)
    own = module.state_dict()
    state = read_entries(file.path, sha256=sha256 or file.sha256, entry=entry, own=own)
    state = _with_tied(module, state)
    if not own.keys() <= state.keys():
        state = with_names_of(own, with_masks_applied(state), file.path)
    if not own.keys() <= state.keys():
        state = _with_tied(module, with_names_of_today(module, state))
    state = {k: v for k, v in state.items() if k in own or not k.startswith(_AUXILIARY)}
    asked = own
    if (
        card
        and card.features_of
        and any(k not in state or state[k].shape != own[k].shape for k in _only_tensors(own))
    ):
        prefix = card.features_of[1]
        asked, state = ({k: v for k, v in d.items() if k.startswith(prefix)} for d in (own, state))
    _check_same_network(asked, state, file, card.name if card else type(module).__name__)
    _require_finite(own, state, file)
    own.update(state)
    module.load_state_dict(own)
    return file


def _with_tied(module: nn.Module, state: StateDict) -> StateDict:
    """``state`` with all names of a tensor that the network holds under several and the file under one."""
    shared: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        shared.setdefault(id(parameter), []).append(name)
    found = dict(state)
    for names in shared.values():
        present = next((name for name in names if name in state), None)
        others = [
            n for n in names if n in state and n != present and not _is_same(state[n], state[str(present)])
        ]
        if others:
            raise ShrinkbenchError(
                f"'{present}' and '{others[0]}' are one tensor in the network and differ in the file; leave "
                "the one that does not count out of the file, or name a network that does not share them"
            )
        if present is not None and len(names) > 1:
            found |= {name: state[present] for name in names if name not in state}
    return found


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether both are the same, bit for bit: NaN too, and numbers of eight bits, which torch compares not."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (one, other)))


def _find_named(source: str, card: ModelCard | None) -> WeightsEntry | None:
    if card is None:
        return None
    entries = known_weights(card)
    if source.upper() == "DEFAULT":
        if not entries:
            raise ShrinkbenchError(f"no public weights are known for {card.name}; pass the path of a file")
        return entries[0]
    return next((e for e in entries if e.name.lower() == source.lower()), None)


def known_weights(card: ModelCard) -> tuple[WeightsEntry, ...]:
    """Public weights of the card, else those of the network that has the same features."""
    if card.weights or card.features_of is None:
        return card.weights
    return MODELS.get(card.features_of[0]).weights


def _entry_of(path: Path, digest: str, card: ModelCard | None = None) -> WeightsEntry | None:
    own = known_weights(card) if card else ()
    entries = [entry for found in (own, *(c.weights for _, c in MODELS.items())) for entry in found]
    found = next((e for e in entries if e.sha256 and digest.startswith(e.sha256)), None)
    by_blob = [entry for entry in entries if entry.git_blob] if found is None else []
    blob = git_blob_of(path) if by_blob else ""
    return next((entry for entry in by_blob if entry.git_blob == blob), found)


def _entry_beside(path: Path, digest: str) -> WeightsEntry | None:
    """The entry that ``shrinkbench pretrain`` wrote beside the weights, where it is about this very file."""
    card = path.with_suffix(".json")
    try:
        data = parse_json(read_file(card, most=1 << 20))
        if data["sha256"] != digest:
            return None
        measured = data["test"].get("metrics", data["test"])  # version 0.1.0 wrote the metrics alone
        return WeightsEntry(
            name=data["name"],
            dataset=data["dataset"],
            source=f"trained by shrinkbench, recipe {data['spec']['recipe']['name']}",
            licence="the maker's own",
            normalisation=Normalisation(**data["normalisation"]),
            sha256=digest,
            measured_top1={f"{data['dataset']} test split": measured["top1"]},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _check_same_network(own: Mapping[str, Tensor], state: StateDict, file: WeightsFile, name: str) -> None:
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    own, state = _only_tensors(own), _only_tensors(state)
    reshaped = [k for k in state if k in own and state[k].shape != own[k].shape]
    other_kinds = [
        k for k in own if k in state and _kind(state[k]) != _kind(own[k]) and own[k].is_floating_point()
    ]
    differences = [
        *(f"{k} is of {state[k].dtype} in the file, the network's of {own[k].dtype}" for k in other_kinds[:1]),
        *(f"{k} holds values in the file that {own[k].dtype} has not" for k in _too_large(own, state)[:1]),
        *(f"{k} is {_shape(state[k])} in the file and {_shape(own[k])} in the network" for k in reshaped[:1]),
        *([f"the file lacks {', '.join(missing[:2])}{_more(missing)}"] if missing else []),
        *([f"the network lacks {', '.join(unexpected[:2])}{_more(unexpected)}"] if unexpected else []),
    ]
    if differences:
        raise ShrinkbenchError(f"{file.path} is for another network than {name}: {'; '.join(differences)}")


def _require_finite(own: Mapping[str, Tensor], state: StateDict, file: WeightsFile) -> None:
    """Refuse NaN and infinity where the network has none of its own; masks of attention hold minus infinity."""
    for name, tensor in _only_tensors(state).items():
        odd = 0 if name not in own or _infinite(own[name]) else _infinite(tensor)
        if odd:
            raise ShrinkbenchError(
                f"{odd:,} of {tensor.numel():,} values of '{name}' in {file.path} are NaN or infinite, as "
                "after a training that diverged; pass weights of before"
            )


def _only_tensors(state: Mapping[str, Tensor]) -> StateDict:
    """``state`` without what layers store beside their tensors."""
    return {name: value for name, value in state.items() if not name.endswith(EXTRA_STATE)}


def _infinite(tensor: Tensor) -> int:
    """How many values are NaN or infinite; numbers of eight bits are looked at as wider ones."""
    wide = tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
    return tensor.numel() - int(wide.isfinite().sum())


def _too_large(own: Mapping[str, Tensor], state: StateDict) -> list[str]:
    """What would become infinite in the network's precision."""
    wider = (k for k in own if k in state and _kind(state[k]) == _kind(own[k]) == "real")
    wider = (k for k in wider if torch.finfo(state[k].dtype).max > torch.finfo(own[k].dtype).max)
    return [k for k in wider if not torch.equal(state[k].isfinite(), state[k].to(own[k].dtype).isfinite())]


def _kind(tensor: Tensor) -> str:
    """Whether numbers are real, complex or whole: one does not become another in silence."""
    return "real" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "whole"


def _more(names: list[str]) -> str:
    return f" and {len(names) - 2} more" if len(names) > 2 else ""


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "a scalar"
