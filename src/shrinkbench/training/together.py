"""Processes of one or several machines that train one network, by Lightning Fabric (extra ``fabric``)."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.processes import end_with, head_alone_hears, import_as_before, importing_nothing_from_here
from shrinkbench.training.team import Team

Told = TypeVar("Told")
_BROKEN = re.compile(r"Connection (reset|closed) by peer|remote worker|NCCL")
_BUCKET = 2**24  # numbers that are added up in one message


@dataclass(frozen=True)
class Places:
    """``devices`` processes on each of ``num_nodes`` machines; ``device`` is ``cpu`` or ``cuda``."""

    device: str
    devices: int = 1
    num_nodes: int = 1
    node: int = 0
    address: str = "127.0.0.1"
    port: int = 0

    @property
    def size(self) -> int:
        """Processes in all."""
        return self.devices * self.num_nodes


def places_of(device: str, devices: int, num_nodes: int = 1) -> Places:
    """The places, as the environment says which machine this is and where the first one listens.

    ``NODE_RANK`` (or Slurm's ``SLURM_NODEID``) counts machines from 0; ``MASTER_ADDR`` and ``MASTER_PORT`` are
    those of the first. Raises ``ShrinkbenchError`` for numbers that are none, for more GPUs than there are,
    and where something is not installed or not said.
    """
    if devices < 1 or num_nodes < 1:
        raise ShrinkbenchError(f"{devices} devices on {num_nodes} machines are none; give at least 1 of each")
    if find_spec("lightning_fabric") is None:
        raise ShrinkbenchError(
            "training on several devices needs lightning-fabric; install it with: pip install "
            "'shrinkbench[fabric]'"
        )
    if device == "cuda" and devices > torch.cuda.device_count():
        raise ShrinkbenchError(
            f"--devices {devices}: this machine shows {torch.cuda.device_count()} CUDA devices; ask for fewer"
        )
    if num_nodes == 1:
        return Places(device, devices, port=_free_port())
    try:
        node = int(os.environ.get("NODE_RANK", os.environ.get("SLURM_NODEID", "")))
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError):
        raise ShrinkbenchError(
            f"--num-nodes {num_nodes}: say which machine this is; set NODE_RANK (from 0), MASTER_ADDR and "
            "MASTER_PORT (of machine 0)"
        ) from None
    if not 0 <= node < num_nodes:
        raise ShrinkbenchError(f"NODE_RANK {node} is none of {num_nodes} machines; count them from 0")
    return Places(device, devices, num_nodes, node, address, port)


class FabricTeam:
    """A process among others: gloo on CPUs, NCCL on GPUs."""

    def __init__(self, fabric: Any) -> None:
        self._fabric = fabric
        self.rank: int = fabric.global_rank
        self.size: int = fabric.world_size
        self.whole = True
        self._endings = 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self._fabric.device
        return device

    def tell(self, value: Told) -> Told:
        """The head's value, in every process."""
        told: Told = self._fabric.broadcast(value, src=0)
        return told

    def gather(self, value: Told) -> list[Told]:
        """The values of all processes, in their order."""
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over all processes into the tensors, in place; many small ones go in one message."""
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            torch.distributed.all_reduce(flat)
            for tensor, total in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.detach().copy_(total.view(tensor.shape))

    def end(self, kind: str) -> bool:
        """Whether all processes have ended what they did, and alike; if not, the team is no more ``whole``.

        It is told beside the messages of the training, which a process that has failed alone does not send:
        who has failed waits a minute for the others to have failed as well.
        """
        seconds = 3600 if kind == "done" else 60
        store: Any = torch.distributed.distributed_c10d._get_default_store()
        self._endings += 1
        names = [f"shrinkbench/{self._endings}/{rank}" for rank in range(self.size)]
        store.set(names[self.rank], kind)
        try:
            store.wait(names, timedelta(seconds=seconds))
        except RuntimeError:
            self.whole = False
            return False
        self.whole = {store.get(name).decode() for name in names} == {kind}
        return self.whole


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    held: list[Tensor] = []
    for tensor in tensors:
        full = sum(t.numel() for t in held) + tensor.numel() > _BUCKET
        if held and (full or held[0].dtype != tensor.dtype):
            yield held
            held = []
        held.append(tensor)
    if held:
        yield held


@contextmanager
def join_team(places: Places, local: int) -> Iterator[FabricTeam]:
    """This process as number ``local`` of its machine; the others have to join as well."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    said = {
        "MASTER_ADDR": places.address,
        "MASTER_PORT": str(places.port),
        "NODE_RANK": str(places.node),
        "LOCAL_RANK": str(local),
    }
    before = {name: os.environ.get(name) for name in (*said, "WORLD_SIZE")}
    os.environ.update(said)
    try:
        fabric = Fabric(
            accelerator=places.device,
            devices=places.devices,
            num_nodes=places.num_nodes,
            strategy=DDPStrategy(process_group_backend="nccl" if places.device == "cuda" else "gloo"),
            plugins=[LightningEnvironment()],
        )
        fabric.launch()
        yield FabricTeam(fabric)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def team_of(places: Places, follow: Callable[[Team], None]) -> Iterator[FabricTeam]:
    """The team, in its head; in every other process ``follow``, which can be pickled, is called.

    On machines but the first, this process follows as well: ``SystemExit`` ends it afterwards.
    """
    context = multiprocessing.get_context("spawn")
    members = [
        context.Process(target=_join, args=(places, local, follow, os.getpid()), daemon=True)
        for local in range(1, places.devices)
    ]
    threads = torch.get_num_threads()
    with head_alone_hears(signal.SIGTERM), importing_nothing_from_here():
        for member in members:
            member.start()
    try:
        if places.device == "cpu":
            torch.set_num_threads(max(1, threads // places.devices))
        with join_team(places, 0) as team:
            if team.rank:
                follow(team)
                raise SystemExit(0)
            yield team
    except RuntimeError as error:
        if not (_BROKEN.search(str(error)) or _lost(members)):
            raise
        raise ShrinkbenchError(
            f"a process of {places.size} that trained together has ended ({str(error).splitlines()[0][:80]}); "
            "what it said stands above: give the same command again"
        ) from None
    finally:
        torch.set_num_threads(threads)
        _dismiss(members)


def _lost(members: Sequence[BaseProcess]) -> bool:
    """Whether a process has failed; one that fails is told of a moment before it is gone."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        if any(member.exitcode not in (None, 0) for member in members):
            return True
        time.sleep(0.05)
    return False


def _dismiss(members: Sequence[BaseProcess]) -> None:
    until = time.monotonic() + 10
    for member in members:
        member.join(max(until - time.monotonic(), 0))
        if member.is_alive():
            member.kill()
            member.join()


def _join(places: Places, local: int, follow: Callable[[Team], None], head: int) -> None:
    """The life of a process that the head has started."""
    end_with(head)
    import_as_before()
    if places.device == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // places.devices))
    with join_team(places, local) as team:
        follow(team)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def packed(module: nn.Module, arguments: dict[str, Any]) -> bytes:
    """``arguments`` of a training with its network, for other processes."""
    buffer = io.BytesIO()
    try:
        torch.save({"module": module, **arguments}, buffer)
    except Exception as error:  # pickle has many kinds
        raise ShrinkbenchError(
            f"training on several devices sends the network, data and hooks to other processes, and "
            f"{str(error).splitlines()[0][:90]}; define them in a file, or carry the run out by a sweep"
        ) from None
    return buffer.getvalue()


@dataclass(frozen=True)
class TeamMember:
    """What a process does that helps with one training."""

    content: bytes
    train: Callable[..., Any]

    def __call__(self, team: Team) -> None:
        """Train with the others."""
        device = team.device if isinstance(team, FabricTeam) else torch.device("cpu")
        arguments = torch.load(io.BytesIO(self.content), map_location=device, weights_only=False)
        self.train(arguments.pop("module"), **arguments, team=team)
