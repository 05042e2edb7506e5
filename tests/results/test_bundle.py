"""Bundles can be checked and merged; the leaderboard ranks what they hold and links to the evidence."""

import hashlib
import json
import re
import zipfile

import pytest
from made_results import changed, make_result, make_results, make_spec, plain_accuracy, write_store

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.leaderboard import write_leaderboard
from shrinkbench.results.bundle import read_bundle, read_source, write_bundle
from shrinkbench.results.merging import merge
from shrinkbench.results.store import ResultStore
from shrinkbench.results.verification import verify
from shrinkbench.spec.value import digest_of_fields

PAIR = [("cifar10", "resnet20")]


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", make_results(pairs=PAIR, methods=["random", "global_magnitude"]))


def rewritten(path, target, change):
    """Copy a bundle with the content of its files changed by ``change(name, bytes)``."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_a_bundle_holds_everything_and_equal_results_give_equal_bytes(store, tmp_path):
    written = write_bundle(store.root, tmp_path / "a.zip")
    write_bundle(store.root, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    bundle = read_bundle(tmp_path / "a.zip")
    assert bundle.digest == written.digest == read_source(store.root).digest
    assert sorted(r.key for r in bundle.results) == sorted(r.key for r in store.results()[0])
    assert bundle.plan == store.read_plan()
    assert verify(bundle) == []


def test_an_altered_bundle_is_refused(store, tmp_path):
    write_bundle(store.root, tmp_path / "a.zip")

    def better(name, content):
        return content.replace(b'"top1":', b'"top1": ', 1) if name.startswith("runs/") else content

    with pytest.raises(ShrinkbenchError, match=r"differs? from the manifest"):
        read_bundle(rewritten(tmp_path / "a.zip", tmp_path / "b.zip", better))

    def dropped(name, content):
        return None if name.endswith("plan.json") else content

    with pytest.raises(ShrinkbenchError, match=r"lists .plan\.json., which it does not hold"):
        read_bundle(rewritten(tmp_path / "a.zip", tmp_path / "c.zip", dropped))


def test_what_is_no_bundle_is_told(store, tmp_path):
    write_bundle(store.root, tmp_path / "a.zip")
    (tmp_path / "half.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:5000])
    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")
    for name, sentence in [
        ("half.zip", "not a whole bundle"),
        ("text.zip", "not a whole bundle"),
        ("other.zip", "holds 'readme', which is no file of a bundle"),
        ("absent.zip", "there is no bundle"),
    ]:
        with pytest.raises(ShrinkbenchError, match=sentence):
            read_source(tmp_path / name)

    def newer(name, content):
        return json.dumps(json.loads(content) | {"version": 2}) if name == "manifest.json" else content

    with pytest.raises(ShrinkbenchError, match="of version 2; this shrinkbench reads"):
        read_bundle(rewritten(tmp_path / "a.zip", tmp_path / "new.zip", newer))


def test_an_empty_store_cannot_be_bundled(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(ShrinkbenchError, match="holds no results; run a sweep"):
        write_bundle(tmp_path, tmp_path / "a.zip")


FORGERIES = {
    "key": (lambda r: {"spec": r.spec.model_copy(update={"seed": 77})}, "does not agree with its key"),
    "ratio": (
        lambda r: {"size": r.size.model_copy(update={"compression": 99.0})},
        "size.compression = 99 is not",
    ),
    "speedup": (
        lambda r: {"size": r.size.model_copy(update={"theoretical_speedup": 9.0})},
        "size.theoretical_speedup = 9 is not",
    ),
    "layers": (lambda r: {"layers": dict(list(r.layers.items())[1:])}, "layers do not add up"),
    "accuracy": (lambda r: {"after": changed(r.after, top1=0.912345)}, "not a count of 10000"),
    "top5": (lambda r: {"after": changed(r.after, top5=0.1)}, "after.top5 = 0.1 is below top1"),
    "unmeasurable": (lambda r: {"after": changed(r.after, loss=1e308)}, "less than or equal to 3402823466"),
    "beyond": (lambda r: {"after": changed(r.after, top1=1.5)}, "top1 = 1.5 is above 1"),
    "unmeasured": (lambda r: {"after": None}, "has a size and a quality"),
    "status": (lambda r: {"status": "failed"}, "an error exactly when it failed"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_result_that_contradicts_itself_is_found(store, forgery):
    change, sentence = FORGERIES[forgery]
    victim = next(r for r in store.results()[0] if r.spec.target == 8)
    forged = victim.model_copy(update=change(victim))
    store.result_path(victim.key).write_text(forged.model_dump_json())
    found = verify(read_source(store.root))
    assert len(found) == 1
    assert sentence in found[0]
    assert victim.key[:12] in found[0]


def test_controls_that_differ_between_methods_are_found(store):
    victim = next(r for r in store.results()[0] if r.spec.target == 1)
    store.write(victim.model_copy(update={"after": changed(victim.after, loss=9.0)}))
    found = verify(read_source(store.root))
    assert len(found) == 1
    assert "its control differs" in found[0]


def test_merging_unites_runs_and_plans(tmp_path):
    one = write_store(tmp_path / "one", make_results(pairs=PAIR, methods=["random"]), name="one")
    two = write_store(
        tmp_path / "two", make_results(pairs=PAIR, methods=["random", "global_magnitude"]), name="two"
    )
    write_bundle(two.root, tmp_path / "two.zip")
    merged = merge([one.root, tmp_path / "two.zip"], tmp_path / "out")
    assert (merged.runs, merged.differing) == (36, 0)
    assert [count for _, count in merged.taken] == [18, 18]
    store = ResultStore(tmp_path / "out")
    assert len(store.results()[0]) == 36
    assert [e.name for e in store.read_plan().experiments] == ["one", "two"]
    assert store.status().as_dict() == {"total": 36, "done": 36, "failed": 0, "missing": 0}


def test_merging_prefers_finished_runs_and_counts_disagreements(tmp_path):
    specs = [make_spec(seed=seed) for seed in range(3)]
    one, two = ResultStore(tmp_path / "one"), ResultStore(tmp_path / "two")
    one.write(make_result(specs[0], failed="killed"))
    two.write(make_result(specs[0]))
    for store, shift in ((one, 0.0), (two, 0.01)):
        store.write(make_result(specs[1], accuracy=lambda s, shift=shift: plain_accuracy(s) + shift))
    one.write(make_result(specs[2]))
    two.write(make_result(specs[2], failed="killed"))
    merged = merge([one.root, two.root], tmp_path / "out")
    assert (merged.runs, merged.differing) == (3, 1)
    assert merged.largest_difference == pytest.approx(0.01, abs=2e-4)
    results = {r.spec.seed: r for r in ResultStore(tmp_path / "out").results()[0]}
    assert all(r.status == "done" for r in results.values())
    assert results[1].after == one.read(specs[1].key).after


def test_merging_into_results_keeps_them(tmp_path):
    specs = [make_spec(seed=seed) for seed in range(3)]
    one, two = ResultStore(tmp_path / "one"), ResultStore(tmp_path / "two")
    one.write(make_result(specs[0]))
    one.write(make_result(specs[1], failed="killed"))
    two.write(make_result(specs[0], failed="killed"))
    two.write(make_result(specs[1]))
    two.write(make_result(specs[2]))
    write_bundle(two.root, tmp_path / "two.zip")
    merged = merge([tmp_path / "two.zip", two.root, one.root], one.root)
    assert merged.taken == ((str(one.root), 1), (str(tmp_path / "two.zip"), 2), (str(two.root), 0))
    assert [r.status for r in one.results()[0]] == ["done"] * 3
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(ShrinkbenchError, match="holds no results of shrinkbench"):
        merge([one.root, two.root], other)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


@pytest.mark.usefixtures("without_figures")
def test_damaged_files_are_named_by_merge_and_leaderboard(store, tmp_path):
    damaged = store.results()[0][3].key
    path = store.result_path(damaged)
    path.write_bytes(path.read_bytes()[:100])
    merged = merge([store.root, store.root], tmp_path / "out")
    assert {p.path for p in merged.problems} == {path}
    written = write_leaderboard([store.root], tmp_path / "board")
    assert [p.path for p in written.problems] == [path]
    assert f"runs/{damaged}/result.json: is not whole JSON" in written.index.read_text(encoding="utf-8")
    (evidence,) = (tmp_path / "board" / "evidence").iterdir()
    assert "<b>1</b> file skipped" in (evidence / "index.html").read_text(encoding="utf-8")


def as_schema_1(result):
    """The fields under which the first schema would have stored a one-shot run."""
    spec, method = result.spec.model_dump(mode="json"), result.spec.method
    axes = ("structure", "score", "allocation", "schedule", "finetuning")
    old = {
        **{name: spec["task"][name] for name in ("data", "weights")},
        "model": result.spec.model.name,
        "method": {"name": method.name} | {axis: getattr(method, axis).name for axis in axes},
        "compression": result.spec.target,
        "seed": result.spec.seed,
        "recipe": spec["recipe"],
    }
    fields = result.model_dump(mode="json") | {"schema_version": 1, "spec": old, "key": digest_of_fields(old)}
    for name in ("before", "after", "validation"):
        fields[name] = fields[name]["metrics"] | {"images": fields[name]["examples"]}
    for record in fields["epochs"]:
        record |= {f"validation_{name}": value for name, value in record.pop("validation").items()}
    return fields


def test_results_of_the_first_schema_are_read_from_stores_and_bundles(store, tmp_path):
    result = store.results()[0][0]
    fields = as_schema_1(result)
    store.result_path(result.key).unlink()
    path = store.result_path(fields["key"])
    path.parent.mkdir()
    path.write_text(json.dumps(fields))
    assert verify(read_source(store.root)) == []
    (found,) = [r for r in store.results()[0] if r.key == fields["key"]]
    assert (found.after, found.size, found.spec.migrated_from) == (result.after, result.size, found.key)
    assert found.spec.method.schedule.rounds == 1

    name, content = f"runs/{found.key}/result.json", path.read_bytes()
    manifest = {"format": "shrinkbench-bundle", "version": 1, "name": "old"}
    sums = {name: hashlib.sha256(content).hexdigest()}
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest | {"files": sums}))
        archive.writestr(name, content)
    assert read_bundle(tmp_path / "old.zip").results == (found,)

    fields["spec"]["seed"] = 77
    path.write_text(json.dumps(fields))
    assert any("its key does not follow" in sentence for sentence in verify(read_source(store.root)))


def test_two_grids_of_one_name_are_both_kept(tmp_path):
    one = write_store(tmp_path / "one", make_results(pairs=PAIR, methods=["random"]))
    two = write_store(tmp_path / "two", make_results(pairs=PAIR, methods=["global_magnitude"]))
    merge([one.root, two.root], tmp_path / "out")
    names = [e.name for e in ResultStore(tmp_path / "out").read_plan().experiments]
    assert names[0] == "made"
    assert re.fullmatch(r"made-[0-9a-f]{6}", names[1])


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_the_leaderboard_ranks_methods_and_links_to_the_evidence(tmp_path):
    one = write_store(tmp_path / "one", make_results(methods=["random", "global_magnitude"]), name="one")
    two = write_store(tmp_path / "two", make_results(pairs=PAIR, methods=["global_gradient"]), name="two")
    victim = next(r for r in two.results()[0] if r.spec.target == 8)
    two.write(victim.model_copy(update={"after": changed(victim.after, top1=victim.after["top1"] + 3e-5)}))
    index = write_leaderboard([one.root, two.root], tmp_path / "board").index
    text = index.read_text(encoding="utf-8")
    tables = re.findall(r"<h2>(.*?)</h2>.*?<tbody>(.*?)</tbody>", text, flags=re.DOTALL)
    order = {
        title: [re.sub("<wbr>", "", m) for m in re.findall(r'<th scope="row">(.*?)</th>', body)]
        for title, body in tables
    }
    assert order["cifar10 / resnet20"] == ["global_magnitude", "random", "global_gradient", "control"]
    assert "1 missing run (8x; seed " in text  # no whole number of images: it is no result
    assert order["imagenet / resnet18"] == ["global_magnitude", "random", "control"]
    assert text.count('aria-label="has problems, see below"') == 1
    links = set(re.findall(r'href="(evidence/[^"#]+)', text))
    assert len(links) == 6  # two reports, two bundles, two bibliographies
    assert all((index.parent / link).is_file() for link in links)
    bundles = [link for link in links if link.endswith("bundle.zip")]
    assert {len(read_bundle(index.parent / b).results) for b in bundles} == {36 * 3, 17}
