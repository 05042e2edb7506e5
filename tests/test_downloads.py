"""Downloads resume, are checked, and say what to do where they fail."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import cache_folder, fetch
from shrinkbench.models import WeightsEntry, get_model, locate_weights
from shrinkbench.spec import IMAGENET_NORMALISATION

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; ``breaks_after`` cuts the first answer short."""

    breaks_after: int | None = None
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pt"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        start = int(re.match(r"bytes=(\d+)-", wanted).group(1)) if wanted and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop, self.server.breaks_after = self.server.breaks_after, None
        self.wfile.write(CONTENT[start : stop or len(CONTENT)])
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once(server, tmp_path):
    target = tmp_path / "deep" / "weights.pt"
    for _ in range(2):
        assert fetch(server.url, target, sha256=DIGEST, instead="pass another") == target
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1
    fetch(server.url, target, sha256=DIGEST[:8], instead="pass another")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_resumes(server, tmp_path, ranges):
    target = tmp_path / "weights.pt"
    server.breaks_after, server.ranges = 300_000, ranges
    with pytest.raises(ShrinkbenchError, match="cannot download"):
        fetch(server.url, target, sha256=DIGEST, instead="pass another")
    assert not target.exists()
    assert (tmp_path / "weights.pt.part").stat().st_size == 300_000
    fetch(server.url, target, sha256=DIGEST, instead="pass another")
    assert target.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-"]
    assert not (tmp_path / "weights.pt.part").exists()


def test_a_part_that_is_whole_is_taken(server, tmp_path):
    (tmp_path / "weights.pt.part").write_bytes(CONTENT)
    fetch(server.url, tmp_path / "weights.pt", sha256=DIGEST, instead="pass another")
    assert (tmp_path / "weights.pt").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_is_left(server, tmp_path):
    with pytest.raises(ShrinkbenchError, match=f"has SHA-256 {DIGEST[:16]}..., not {'0' * 16}"):
        fetch(server.url, tmp_path / "weights.pt", sha256="0" * 64, instead="pass another")
    assert not list(tmp_path.glob("weights.pt*[!k]"))


def test_a_damaged_copy_in_the_cache_is_refused(server, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"damaged")
    with pytest.raises(ShrinkbenchError, match="the copy was removed: run the command again"):
        fetch(server.url, tmp_path / "weights.pt", sha256=DIGEST, instead="pass another")
    fetch(server.url, tmp_path / "weights.pt", sha256=DIGEST, instead="pass another")


def test_without_network_the_message_says_what_to_do(server, tmp_path):
    server.shutdown()
    server.server_close()
    target = tmp_path / "weights.pt"
    with pytest.raises(ShrinkbenchError) as raised:
        fetch(server.url, target, sha256=DIGEST, instead="pass its path with --weights FILE")
    text = str(raised.value)
    assert server.url in text
    assert f"fetch it by hand and save it as {target}, or pass its path with --weights FILE" in text


def test_an_entry_of_a_card_is_fetched_into_the_cache_by_name(server, tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.setenv("SHRINKBENCH_CACHE", str(tmp_path))
    entry = WeightsEntry(
        name="mine",
        dataset="cifar10",
        source="https://example.org",
        licence="MIT",
        normalisation=IMAGENET_NORMALISATION,
        sha256=DIGEST[:8],
        url=server.url,
    )
    card = replace(get_model("resnet20"), weights=(entry,))
    for name in ("MINE", "default"):
        file = locate_weights(name, card=card)
        assert file.path == cache_folder() / "weights" / "weights.pt"
        assert (file.sha256, file.entry) == (DIGEST, entry)
    assert len(server.requests) == 1
