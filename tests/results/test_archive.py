"""Zip files of strangers: what is no file of a bundle is refused by name and size, and nothing is unpacked."""

import hashlib
import json
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from commands import shrinkbench
from made_results import make_result, make_results, make_spec, write_store

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.plugins import load_plugin
from shrinkbench.report.leaderboard import write_leaderboard
from shrinkbench.results import archive
from shrinkbench.results import store as store_module
from shrinkbench.results.archive import write_archive
from shrinkbench.results.bundle import read_source, write_bundle
from shrinkbench.results.merging import merge
from shrinkbench.results.reading import parse_plan, parse_result
from shrinkbench.sources import digest_of_parts

PAIR = [("cifar10", "resnet20")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("archive")
    results = make_results(pairs=PAIR, methods=["random"], compressions=(1, 4))
    write_bundle(write_store(root / "store", results).root, root / "a.zip")
    return root / "a.zip"


def forged(bundle, target, *, name="made", more=(), rename=None):
    """The bundle under another manifest name, with ``more`` members, all of them in the manifest."""
    with zipfile.ZipFile(bundle) as old:
        members = [(n, old.read(n)) for n in old.namelist() if n != "manifest.json"]
    members = [(rename(n) if rename else n, content) for n, content in members] + list(more)
    sums = {n: hashlib.sha256(content).hexdigest() for n, content in members}
    manifest = {"format": "shrinkbench-bundle", "version": 1, "name": name, "files": sums}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("manifest.json", json.dumps(manifest))
        for n, content in members:
            new.writestr(n, content)
    return target


OUTSIDE = [
    "../evil.txt",
    "/tmp/evil.txt",
    "runs/zzz/result.json",
    "evil.txt",
    "plugins/evil.py",
    "runs/../plan.json",
]
OUTSIDE += [
    f"runs/{'a' * 64}/checkpoint-0.pt",
    f"plugins/{'a' * 64}/../../evil.py",
    f"runs/{'A' * 64}/result.json",
]


@pytest.mark.parametrize("member", OUTSIDE)
def test_a_member_that_no_bundle_has_is_refused_by_name(bundle, tmp_path, member):
    evil = forged(bundle, tmp_path / "evil.zip", more=[(member, b"owned")])
    for read in (read_source, lambda path: merge([path, bundle], tmp_path / "out")):
        with pytest.raises(ShrinkbenchError, match="no file of a bundle") as told:
            read(evil)
        assert repr(member) in str(told.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.zip"]


@pytest.mark.parametrize("name", ["../../outside", "/tmp/x", "a/b", "", ".hidden", "a\nb"])
def test_a_name_that_is_no_file_name_is_refused(bundle, tmp_path, name):
    evil = forged(bundle, tmp_path / "evil.zip", name=name)
    with pytest.raises(ShrinkbenchError, match="its name is"):
        write_leaderboard([evil], tmp_path / "deep" / "board")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_stands_there_twice_is_refused(bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        member = next(n for n in archive.namelist() if n.startswith("runs/"))
        content = archive.read(member)
    evil = forged(bundle, tmp_path / "evil.zip", more=[(member, content)])
    with pytest.raises(ShrinkbenchError, match=f"{member} twice"):
        read_source(evil)


def test_a_result_in_the_folder_of_another_key_is_no_result(bundle, tmp_path):
    def swap(name):
        return f"runs/{'0' * 64}/result.json" if name == swap.victim else name

    with zipfile.ZipFile(bundle) as archive:
        swap.victim = next(n for n in archive.namelist() if n.startswith("runs/"))
    found = read_source(forged(bundle, tmp_path / "evil.zip", rename=swap))
    assert len(found.results) == 5
    assert [p.path.parent.name for p in found.problems] == ["0" * 64]
    assert "another key" in found.problems[0].sentence


def test_what_unpacks_to_more_than_a_bundle_is_refused_unread(bundle, tmp_path):
    """The size that is announced decides: nothing is inflated, and no more than that would be."""
    key = read_source(bundle).results[0].key
    bomb = forged(
        bundle, tmp_path / "bomb.zip", more=[(f"runs/{key}/conflicts/{'a' * 64}.json", bytes(9 << 20))]
    )
    with pytest.raises(ShrinkbenchError, match=r"is 9 MiB large, and a bundle's may be 8 MiB"):
        read_source(bomb)
    many = [(f"runs/{n:064x}/result.json", b"x") for n in range(200)]
    content = bytearray(forged(bundle, tmp_path / "many.zip", more=many).read_bytes())
    start = content.find(b"PK\x01\x02")
    while start >= 0:  # the central directory announces 7 MiB for every result
        if b"runs/" in content[start + 46 : start + 60]:
            content[start + 24 : start + 28] = struct.pack("<I", 7 << 20)
        start = content.find(b"PK\x01\x02", start + 4)
    (tmp_path / "many.zip").write_bytes(content)
    with pytest.raises(ShrinkbenchError, match=r"unpacks to 1,\d+ MiB, and bundles up to 128 MiB are read"):
        read_source(tmp_path / "many.zip")


def test_no_more_is_unpacked_than_is_announced(bundle, tmp_path):
    """Both headers say 1,000 bytes; 300 KB that are 300 MB took 650 MB of memory."""
    size = (60 << 20) + 1
    more = [(f"runs/{'0' * 64}/result.json", bytes(size))]
    content = forged(bundle, tmp_path / "lie.zip", more=more).read_bytes()
    told = struct.pack("<I", size)
    assert content.count(told) == 2
    (tmp_path / "lie.zip").write_bytes(content.replace(told, struct.pack("<I", 1000)))
    tracemalloc.start()
    try:
        with pytest.raises(ShrinkbenchError, match=r"not a whole bundle \(Bad CRC-32"):
            read_source(tmp_path / "lie.zip")
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_damage_anywhere_is_one_sentence_or_harmless(bundle, tmp_path):
    whole = bundle.read_bytes()
    told = []
    for place in range(0, len(whole), 211):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "damaged.zip").write_bytes(damaged)
        try:
            assert read_source(tmp_path / "damaged.zip").digest == read_source(bundle).digest
        except ShrinkbenchError as error:
            told.append(str(error))
    assert len(told) > 10
    assert all("damaged.zip" in sentence and "\n" not in sentence for sentence in told)


def test_names_of_folders_become_names_of_files(tmp_path):
    store = write_store(
        tmp_path / "my results (1)", make_results(pairs=PAIR, methods=["random"], compressions=(1,))
    )
    store.plan_path.unlink()
    write_bundle(store.root, tmp_path / "a.zip")
    assert read_source(tmp_path / "a.zip").name == "my-results-1"


CODE = f"plugins/{'c' * 64}"


def test_a_file_that_is_a_folder_too_is_refused_before_anything_is_written(bundle, tmp_path):
    evil = forged(bundle, tmp_path / "evil.zip", more=[(f"{CODE}/a", b"1"), (f"{CODE}/a/b", b"2")])
    with pytest.raises(ShrinkbenchError, match="as a file and as a folder"):
        merge([evil], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_does_not_end_at_a_nul(bundle, tmp_path):
    evil = forged(bundle, tmp_path / "evil.zip", more=[(f"{CODE}/aXb.py", b"1")])
    evil.write_bytes(evil.read_bytes().replace(b"/aXb.py", b"/a\0b.py"))
    with pytest.raises(ShrinkbenchError, match=r"a.x00b.py', which is no file of a bundle"):
        read_source(evil)


def test_code_on_which_no_run_rests_is_not_taken_over(bundle, tmp_path):
    evil = forged(bundle, tmp_path / "evil.zip", more=[(f"{CODE}/mine.py", b"1")])
    merge([evil], tmp_path / "out")
    assert not (tmp_path / "out" / "plugins").exists()


def _with_manifest(bundle, target, change):
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name == "manifest.json" else content)
    return target


def _listed(content, change):
    manifest = json.loads(content)
    change(manifest["files"])
    return json.dumps(manifest).encode()


GHOST = f"runs/{'f' * 64}/result.json"
MANIFESTS = {
    "absent": (lambda c: _listed(c, lambda files: files.update({GHOST: "0" * 64})), "which it does not hold"),
    "stowed": (lambda c: _listed(c, lambda files: files.popitem()), "which its manifest does not list"),
    "two names": (lambda c: c.replace(b"{", b'{"name": "b",', 1), "two entries of one name, 'name'"),
    "large": (lambda c: c + b" " * 100_000, "its manifest is"),
}


@pytest.mark.parametrize(("change", "sentence"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_not_of_these_files_is_refused_by_its_own_reason(bundle, tmp_path, change, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence):
        read_source(_with_manifest(bundle, tmp_path / "evil.zip", change))


def _crowded_result(text, part, count):
    return text.replace(b'"epochs": [', b'"epochs": [' + part * count, 1).replace(b",]", b"]", 1)


@pytest.mark.parametrize(
    ("part", "count", "sentence"),
    [(b"{},", 200_000, "200,... objects and lists"), (b"1,", 600_000, "commas"), (b"{},", 30_000, "epochs.0")],
)
def test_a_result_of_too_many_parts_is_refused_before_they_are_complained_of(part, count, sentence):
    result = make_results(pairs=PAIR, methods=["random"], compressions=(4,))[0]
    text = _crowded_result(result.model_dump_json(indent=1).encode().replace(b"[]", b"[\n]"), part, count)
    problem = parse_result(Path("runs") / result.key / "result.json", text)
    assert re.search(sentence, problem.sentence), problem.sentence


def test_a_plan_of_too_many_parts_is_refused_and_a_wrong_one_at_its_first_part():
    head, tail = b'{"schema_version":2,"name":"a","description":"","experiments":[', b'{}],"runs":[]}'
    with pytest.raises(ShrinkbenchError, match="5,000,004 objects and lists, and up to 4,000,000 are read"):
        parse_plan(Path("plan.json"), head + b"[]," * 5_000_000 + tail)
    with pytest.raises(ShrinkbenchError, match=r"experiments\.0"):
        parse_plan(Path("plan.json"), head + b"{}," * 1000 + tail)


@pytest.mark.parametrize("sign", ["x", '\\"'])
def test_a_plan_with_an_endless_text_is_refused_before_it_is_copied(sign):
    text = '{"schema_version":2,"name":"a","description":"%s","experiments":[],"runs":[]}'
    with pytest.raises(ShrinkbenchError, match="it has a text of more than 65,536 bytes"):
        parse_plan(Path("plan.json"), (text % (sign * 200_000)).encode())
    with pytest.raises(ShrinkbenchError, match="experiments: tuple should have at least 1 item"):
        parse_plan(Path("plan.json"), (text % (sign * 20_000)).encode())


def test_what_could_not_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_LARGEST", 1 << 10)
    with pytest.raises(ShrinkbenchError, match=r"a\.zip is not written: its files are 0 MiB"):
        write_archive(tmp_path / "a.zip", "a", {"plan.json": bytes(1 << 11)})
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(store_module, "LARGEST_PLAN", 1 << 10)
    with pytest.raises(ShrinkbenchError, match=r"plan\.json would have \d runs in 0 MiB, and plans"):
        write_store(tmp_path / "store", make_results(pairs=PAIR, methods=["random"], compressions=(1, 4)))
    assert not (tmp_path / "store" / "plan.json").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_member_that_is_compressed_in_another_way_is_refused_unread(bundle, tmp_path, method):
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(tmp_path / "a.zip", "w") as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), old.read(name), method)
    content = (tmp_path / "a.zip").read_bytes()
    place = content.index(b"manifest.json") + 30  # in the stream, which no decoder takes now
    (tmp_path / "a.zip").write_bytes(content[:place] + b"\xff" * 40 + content[place + 40 :])
    with pytest.raises(ShrinkbenchError, match=r"manifest\.json is compressed in another way than deflate"):
        read_source(tmp_path / "a.zip")


def test_merging_takes_code_over_that_is_what_keys_name_and_replaces_none(tmp_path):
    files = {"mine.py": b"x = 1", "part.py": b"y = 2"}
    code = digest_of_parts((place, hashlib.sha256(text).hexdigest()) for place, text in files.items())
    spec = make_spec()
    score = spec.method.score.model_copy(update={"source": code})
    spec = spec.model_copy(update={"method": spec.method.model_copy(update={"score": score})})
    stores = {name: write_store(tmp_path / name, [make_result(spec)]) for name in ("ours", "theirs", "bare")}
    stores["ours"].write_source(code, files)
    for place, text in {"mine.py": b"evil = 1", "more.py": b"1"}.items():
        copy = stores["theirs"].root / "plugins" / code / place
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(text)
    for out in ("ours", "bare"):
        merged = merge([tmp_path / "theirs"], tmp_path / out)
        assert [p.path for p in merged.problems] == [tmp_path / "theirs" / "plugins" / code]
    assert stores["ours"].sources()[0] == {code: files}
    assert stores["bare"].sources()[0] == {}
    merge([tmp_path / "ours"], tmp_path / "theirs")  # theirs is set aside as a whole, not mixed with ours
    assert stores["theirs"].sources()[0] == {code: files}
    (aside,) = (tmp_path / "theirs" / "plugins").glob(f"{code}.damaged-*")
    assert (aside / "more.py").read_bytes() == b"1"


def test_a_link_to_itself_is_told_like_any_other_path_that_is_none(bundle, tmp_path):
    loop = tmp_path / "loop.py"
    loop.symlink_to(loop)
    with pytest.raises(ShrinkbenchError, match="is not a whole bundle"):
        write_bundle(loop, tmp_path / "b.zip")
    said = shrinkbench("bundle", loop, cwd=tmp_path)
    assert (said.returncode, "is not a whole bundle" in said.stderr) == (2, True)
    merge([bundle], tmp_path / "out")
    with pytest.raises(ShrinkbenchError, match="is not a whole bundle"):
        merge([loop], tmp_path / "out")
    for path in (loop, "a\0b.py"):
        with pytest.raises(ShrinkbenchError, match="there is no plug-in file"):
            load_plugin(path)


@pytest.mark.parametrize("place", ["plan.json", "runs/a.zip", "claims/deep/a.zip", "workspace.json"])
def test_no_bundle_or_report_takes_a_place_of_a_results_folder(tmp_path, place):
    store = write_store(tmp_path / "store", make_results(pairs=PAIR, methods=["random"], compressions=(1, 4)))
    before = store.plan_path.read_bytes()
    for words in (["bundle", str(store.root), "--out"], ["report", str(store.root), "--out"]):
        done = shrinkbench(*words, str(store.root / place))
        assert done.returncode == 2
        assert "has its own" in done.stderr, done.stderr
    assert store.plan_path.read_bytes() == before
    write_bundle(store.root, store.root / "mine.zip")
