"""The page in a browser: no error, no request, and its controls do what they say, wide and narrow."""

import pytest
from chromium import act, needs_chromium
from made_results import FIGURE_6, make_result, make_results, plain_accuracy, write_store

from shrinkbench.report.leaderboard import write_leaderboard
from shrinkbench.report.page.html import write_report

pytestmark = needs_chromium

HELPERS = """
  const $ = (s) => document.querySelector(s), all = (s) => [...document.querySelectorAll(s)];
  const choose = (s, v) => { $(s).value = v; $(s).dispatchEvent(new Event("change")); };
  const shown = () => all("#curve g[data-method]").map((g) => g.dataset.method);
  const key = (k) => $("#curve svg").dispatchEvent(new KeyboardEvent("keydown", { key: k }));
  const tip = () => $("#curve .tip");
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    def accuracy(spec):
        swapped = spec.model.name == "resnet56" and spec.method.name == "global_magnitude" and spec.target > 1
        unlucky = spec.method.name == "global_gradient" and spec.target == 16 and spec.seed == 1
        return plain_accuracy(spec) - (0.05 if swapped else 0.0) - (0.2 if unlucky else 0.0)

    root = tmp_path_factory.mktemp("page")
    results = make_results(tilts=FIGURE_6, accuracy=accuracy)
    results[7] = make_result(results[7].spec, failed="OutOfMemory: <script>alert(1)</script>")
    store = write_store(root / "store", results)
    return write_report(store.root, root / "out", with_figures=False).index


def drive(page, tmp_path, script, width=1440):
    result = act(page, HELPERS + script, width=width, scratch=tmp_path)
    assert result["errors"] == []
    assert result["requests"] == []
    return result["value"]


@pytest.mark.parametrize("width", [390, 1440])
def test_it_opens_without_error_request_or_overflow(page, tmp_path, width):
    value = drive(
        page, tmp_path, "return [document.documentElement.scrollWidth, innerWidth, shown().length]", width
    )
    assert value[0] <= value[1] == width
    assert value[2] == 7


def test_dataset_chooses_networks_and_redraws(page, tmp_path):
    value = drive(
        page,
        tmp_path,
        """
        const label = () => $("#curve svg").getAttribute("aria-label");
        const before = [all("#curve-model option").map((o) => o.value), label()];
        choose("#curve-dataset", "imagenet");
        return [...before, all("#curve-model option").map((o) => o.value), label()];
        """,
    )
    assert value[0] == ["resnet20", "resnet56"]
    assert "cifar10 / resnet20" in value[1]
    assert value[2] == ["resnet18"]
    assert "imagenet / resnet18" in value[3]


def test_metric_and_axis_change_the_chart(page, tmp_path):
    value = drive(
        page,
        tmp_path,
        """
        const texts = () => all("#curve text").map((t) => t.textContent);
        choose("#curve-metric", "loss"); const loss = texts();
        choose("#curve-axis", "theoretical_speedup"); return [loss, texts()];
        """,
    )
    assert "test loss (nats)" in value[0]
    assert not any("%" in text for text in value[0])
    assert "compression ratio (log scale)" in value[0]
    assert "theoretical speedup (log scale)" in value[1]


def test_legend_hides_and_shows_methods(page, tmp_path):
    value = drive(
        page,
        tmp_path,
        """
        const button = $('#legend button[data-method="random"]');
        const states = [[shown().length, button.getAttribute("aria-pressed")]];
        button.click(); states.push([shown().includes("random"), button.getAttribute("aria-pressed")]);
        button.click(); states.push([shown().includes("random"), button.getAttribute("aria-pressed")]);
        const last = all("#legend button").at(-1);
        last.click(); states.push([shown().length, button.getAttribute("aria-pressed")]);
        last.click(); states.push([shown().length, button.getAttribute("aria-pressed")]);
        return states;
        """,
    )
    assert value == [[7, "true"], [False, "false"], [True, "true"], [0, "false"], [7, "true"]]


def test_keyboard_reads_the_points(page, tmp_path):
    value = drive(
        page,
        tmp_path,
        """
        const told = ["ArrowRight", "ArrowRight", "ArrowDown", "Escape"].map((k) => {
          key(k); return tip().hidden ? null : tip().innerText;
        });
        return [told, tip().getAttribute("aria-live"), $("#curve svg").tabIndex];
        """,
    )
    told = value[0]
    assert told[0].startswith("global_gradient")
    assert "asked: 2×" in told[0]
    assert "asked: 4×" in told[1]
    assert told[2].startswith("global_magnitude")
    assert "asked: 4×" in told[2]
    assert told[3] is None
    assert value[1:] == ["polite", 0]


@pytest.mark.parametrize("width", [390, 1440])
def test_pointer_shows_values_inside_the_page(page, tmp_path, width):
    value = drive(
        page,
        tmp_path,
        """
        const mark = all('#curve g[data-method="random"] path').at(-1).getBoundingClientRect();
        const at = { clientX: mark.x + mark.width / 2, clientY: mark.y + mark.height / 2, bubbles: true };
        $("#curve svg").dispatchEvent(new PointerEvent("pointermove", at));
        const box = tip().getBoundingClientRect(), text = tip().innerText;
        $("#curve svg").dispatchEvent(new PointerEvent("pointerleave"));
        return [text, box.left >= 0 && box.right <= innerWidth, tip().hidden];
        """,
        width,
    )
    assert value[0].startswith("random")
    assert "64.5" in value[0]
    assert "(n = 3)" in value[0]
    assert "points from its control" in value[0]
    assert value[1:] == [True, True]


def test_every_seed_can_be_shown_and_values_read_as_a_table(page, tmp_path):
    value = drive(
        page,
        tmp_path,
        """
        const dots = () => all("#curve g[data-method] circle").length, before = dots();
        $("#curve-seeds").click();
        const rows = all("#curve-table tbody tr");
        return [before, dots(), rows.length, rows[0].children[3].textContent];
        """,
    )
    assert value[:3] == [0, 7 * 5 * 3 - 1, 7 * 5]  # one run failed
    assert " to " in value[3]


def test_layers_weights_and_pitfalls_are_drawn(page, tmp_path):
    value = drive(
        page,
        tmp_path,
        """
        choose("#layers-target", "8×"); const first = $("#layers-heat tbody td:nth-child(3)").innerText;
        choose("#layers-target", "2×"); const second = $("#layers-heat tbody td:nth-child(3)").innerText;
        choose("#weights-method", "random");
        const label = $("#weights-chart svg").getAttribute("aria-label");
        return [first, second, label, all("article.pitfall .panels svg").length];
        """,
    )
    assert float(value[0]) < float(value[1])
    assert value[2].startswith("Distribution of weights, random at 8×")
    assert value[3] >= 4


def test_the_ledger_filters_and_pages(page, tmp_path):
    value = drive(
        page,
        tmp_path,
        """
        const rows = () => all("#ledger-body tr"), count = () => $("#ledger-count").textContent;
        const seen = [[rows().length, count()]];
        $("#ledger-next").click(); seen.push([count()]);
        const enter = (s, v) => { $(s).value = v; $(s).dispatchEvent(new Event("input")); };
        enter("#ledger-search", "resnet18 RANDOM@"); seen.push([count()]);
        enter("#ledger-search", ""); enter("#ledger-status", "failed");
        seen.push([count(), rows().map((r) => r.innerText).join(" ")]);
        return seen;
        """,
    )
    assert value[0] == [51, "378 of 378 runs, page 1 of 8"]  # the failed run has a line for its error
    assert value[1] == ["378 of 378 runs, page 2 of 8"]
    assert value[2] == ["18 of 378 runs, page 1 of 1"]
    assert value[3][0] == "1 of 378 runs, page 1 of 1"
    assert "OutOfMemory: <script>alert(1)</script>" in value[3][1]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    root = tmp_path_factory.mktemp("board")
    store = write_store(root / "store", make_results(pairs=[("cifar10", "resnet20")], methods=["random"]))
    index = write_leaderboard([store.root], root / "board").index
    policy = "default-src 'none'; "  # the board itself runs no script; the driver does
    index.write_text(index.read_text().replace(policy, f"{policy}script-src 'unsafe-inline'; "))
    return index


@pytest.mark.parametrize("width", [390, 1440])
def test_the_leaderboard_opens_too(board, tmp_path, width):
    script = "return [document.documentElement.scrollWidth <= innerWidth, all('tbody tr').length]"
    assert drive(board, tmp_path, script, width) == [True, 2]


@pytest.mark.parametrize("kind", ["one run", "failures only", "control only", "no layers"])
def test_meagre_pages_run_without_error(tmp_path, kind):
    from test_html import MEAGRE

    store = write_store(tmp_path / "store", MEAGRE[kind]())
    drive(write_report(store.root, tmp_path / "out", with_figures=False).index, tmp_path, "return 1")
