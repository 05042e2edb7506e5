
/* Single runs: their ledger, the pane of one run, and training curves. Texts are set as text, never as markup. */

const runs = data.ledger;
for (const column of ["task", "method", "amount"]) runs[column] = runs[column].at.map((i) => runs[column].of[i]);
const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(2)} %`);
/* How the metrics of a run are called and shown: label, whether in percent, unit, short name; the headline first. */
const kindsOf = (i) => { const of = runs.kinds.of[runs.kinds.at[i]]; return { of, names: Object.values(of) }; };
const inUnit = (value, kind) => (value === null || value === undefined ? "–" : kind && kind[1] ? percent(value) : `${+value.toPrecision(6)}${kind && kind[2] ? ` ${kind[2]}` : ""}`);
const headline = (i) => inUnit(runs.headline[i], kindsOf(i).names[0]);
const times = (value) => (value === null ? "–" : `${+value.toPrecision(4)}×`);
const seconds = (value) => (value === null ? "–" : value < 90 ? `${value.toFixed(1)} s` : value < 5400 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`);
const nameOf = (i) => `${runs.method[i]} at ${runs.amount[i]}, seed ${runs.seed[i]}`;

/* Ledger: filter, order and pages over columns of plain values */

function setUpLedger() {
  const status = one("#ledger-status"), words = one("#ledger-search"), body = one("#ledger-body"), size = 50;
  const columns = ["key", "status", "task", "method", "amount", "seed", "headline", "compression", "speedup", "epochs", "seconds"];
  const value = (c, i) => (c === "amount" ? sortKey(runs.amount[i]) : runs[c][i]);
  const texts = runs.key.map((_, i) => ["key", "status", "task", "method", "amount", "seed", "error"].map((c) => runs[c][i]).join(" ").toLowerCase());
  let page = 0, sorting = null;
  function draw() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = texts.map((_, i) => i).filter((i) => (!status.value || runs.status[i] === status.value) && wanted.every((w) => texts[i].includes(w)));
    if (sorting) rows.sort((a, b) => compare(value(columns[sorting.column], a), value(columns[sorting.column], b), sorting.falling));
    const pages = Math.max(1, Math.ceil(rows.length / size));
    page = Math.min(Math.max(0, page), pages - 1);
    body.replaceChildren(...rows.slice(page * size, (page + 1) * size).flatMap(ledgerRows));
    one("#ledger-count").textContent = `${rows.length} of ${texts.length} runs, page ${page + 1} of ${pages}`;
    one("#ledger-back").disabled = page === 0;
    one("#ledger-next").disabled = page >= pages - 1;
  }
  for (const control of [status, words]) control.addEventListener("input", () => { page = 0; draw(); });
  one("#ledger-back").addEventListener("click", () => { page -= 1; draw(); });
  one("#ledger-next").addEventListener("click", () => { page += 1; draw(); });
  addSorting([...one("#ledger").tHead.rows[0].cells], (chosen) => { sorting = chosen; page = 0; draw(); });
  draw();
}

/* A name that may wrap after underscores. */
function addName(cell, name) {
  name.split("_").forEach((part, k) => { if (k) cell.append("_", make("wbr")); cell.append(part); });
}

function ledgerRows(i) {
  const row = make("tr"), key = make("a", { class: "run", href: `#run-${runs.key[i]}` }, make("th", { scope: "row" }, row));
  make("code", {}, key, runs.key[i]);
  make("span", { class: `badge ${runs.status[i]}` }, make("td", { class: "text" }, row), runs.status[i]);
  for (const name of [runs.task[i], runs.method[i]]) addName(make("td", { class: "text name" }, row), name);
  const numbers = [runs.amount[i], runs.seed[i], headline(i), times(runs.compression[i]), times(runs.speedup[i]), runs.epochs[i] === null ? "–" : runs.epochs[i], seconds(runs.seconds[i])];
  numbers.forEach((text) => make("td", {}, row, text));
  if (!runs.error[i]) return [row];
  const reason = make("tr");
  make("td", { class: "long", colspan: 11 }, reason, runs.error[i]);
  return [row, reason];
}

/* Training curves */

/* Values of a run's column, from digits, first value and differences; nothing where a run has none. */
function decoded(i, column) {
  const at = (data.training.runs[i] || [])[column], coded = data.training.curves[at];
  if (!coded) return null;
  let sum = 0;
  return coded.slice(1).map((step) => (sum += step) / 10 ** coded[0]);
}
const epochsOf = (i) => decoded(i, 0);

/* One line a run; `extra` are controls, dashed and dark. The ring is the epoch whose weights were measured. */
function drawTraining(host, chosen, controls, column) {
  host.replaceChildren();
  const kind = data.training.columns[column];
  const lines = [...controls.map((i) => [i, true]), ...chosen.map((i) => [i, false])]
    .map(([i, control]) => ({ i, control, xs: epochsOf(i), ys: decoded(i, column + 1) })).filter((line) => line.xs && line.ys);
  if (!lines.length) { make("p", { class: "soft" }, host, "These runs record no training."); return lines; }
  const width = Math.max(260, host.clientWidth || 640), height = Math.round(Math.min(400, Math.max(230, width * 0.55)));
  const box = { left: 62, right: width - 14, top: 12, bottom: height - 44 };
  const ys = lines.flatMap((line) => line.ys), low = Math.min(...ys), high = Math.max(...ys);
  const log = low > 0 && high / low > 50, pad = (high - low || Math.abs(high) || 1) * 0.06, scale = log ? Math.log10 : (v) => v;
  const [y0, y1] = log ? [Math.log10(low), Math.log10(high)] : [low - pad, high + pad], last = Math.max(2, ...lines.flatMap((line) => line.xs));
  const X = (v) => box.left + 6 + ((v - 1) / (last - 1)) * (box.right - box.left - 12), Y = (v) => box.bottom - ((scale(v) - y0) / (y1 - y0)) * (box.bottom - box.top);
  const label = `${kind.label} over epochs of ${lines.filter((l) => !l.control).length} runs and ${lines.filter((l) => l.control).length} controls`;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, host);
  const text = (v) => (kind.percent ? `${+(100 * v).toFixed(2)} %` : `${+v.toPrecision(3)}`);
  const ticks = log ? steps(Math.floor(y0), Math.ceil(y1), 4).map((t) => 10 ** t).filter((t) => t >= low && t <= high) : steps(y0, y1, 5);
  for (const tick of ticks) {
    make("line", { x1: box.left, x2: box.right, y1: Y(tick), y2: Y(tick), stroke: "#e3e7eb" }, svg);
    make("text", { x: box.left - 7, y: Y(tick) + 4, "text-anchor": "end" }, svg, text(tick));
  }
  for (const tick of unique(steps(1, last, Math.min(8, width / 70)).map(Math.round))) make("text", { x: X(tick), y: box.bottom + 18, "text-anchor": "middle" }, svg, tick);
  make("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, svg, "epoch");
  make("text", { transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, svg, `${kind.label}${log ? " (log scale)" : ""}`);
  make("path", { d: `M${box.left} ${box.top}V${box.bottom}H${box.right}`, fill: "none", stroke: "#8b949e" }, svg);
  for (const line of lines) {
    const method = data.methods.find((m) => m.name === runs.method[line.i]), colour = line.control || !method ? "#333" : method.colour;
    const group = make("g", { "data-run": runs.key[line.i], fill: "none", stroke: colour }, svg);
    make("title", {}, group, nameOf(line.i) + (line.control ? " (control)" : ""));
    make("polyline", { points: line.xs.map((x, k) => `${X(x)},${Y(line.ys[k])}`).join(" "), "stroke-width": line.control ? 1.3 : 1.8, "stroke-dasharray": line.control ? "4 3" : "", "stroke-linejoin": "round" }, group);
    const at = line.xs.indexOf(runs.selected[line.i]);
    if (at >= 0) make("circle", { cx: X(line.xs[at]), cy: Y(line.ys[at]), r: 4.5, fill: "#fff", "stroke-width": 1.8 }, group);
  }
  return lines;
}

function captionOf(lines, column) {
  const { points, longest } = data.training, own = lines.some((line) => !line.control), control = lines.some((line) => line.control);
  if (!lines.length) return "";
  return [`${own ? "Solid: the runs, one line a seed. " : ""}${control ? "Dashed: their controls. " : ""}Ring: the epoch whose weights were measured.`,
    longest > points ? `Drawn are about ${points} epochs of each curve, the longest has ${longest}; every epoch is in the result files.` : "",
    data.training.columns[column].key.startsWith("validation_") ? "Measured on the validation split." : ""].filter(Boolean).join(" ");
}

function trainingTable(host, lines, column) {
  const kind = data.training.columns[column], text = (v) => (v === undefined ? "–" : kind.percent ? percent(v) : `${+v.toPrecision(4)}`);
  const table = make("table"), head = make("tr", {}, make("thead", {}, table)), body = make("tbody", {}, table);
  table.prepend(make("caption", {}, null, kind.label));
  ["run", "first epoch", "lowest", "highest", "at the measured epoch", "last", "epochs"].forEach((name) => make("th", { scope: "col" }, head, name));
  for (const { i, control, xs, ys } of lines) {
    const row = make("tr", {}, body);
    make("a", { class: "run", href: `#run-${runs.key[i]}` }, make("th", { scope: "row" }, row), `${control ? "control: " : ""}${nameOf(i)}`);
    [ys[0], Math.min(...ys), Math.max(...ys), ys[xs.indexOf(runs.selected[i])], ys.at(-1)].forEach((v) => make("td", {}, row, text(v)));
    make("td", {}, row, xs.at(-1));
  }
  host.replaceChildren(table);
}

/* The controls of runs, each once; a run that is a control itself has none beside it. */
function controlsAmong(chosen) {
  const groups = chosen.map((i) => runs.control[i]).filter((c) => c !== null);
  return unique(groups).filter((c) => !chosen.includes(c));
}

function fillMeasures(select) {
  const first = data.training.columns.findIndex((c) => c.headline);
  fill(select, data.training.columns.map((c, i) => [String(i), c.label]), String(Math.max(0, first)));
}

/* A measure that some of these runs have: the chosen one, else the metric that their task leads with. */
function keepMeasure(select, chosen) {
  const has = (column) => chosen.some((i) => decoded(i, column + 1));
  if (has(Number(select.value))) return;
  const columns = data.training.columns.map((_, c) => c).filter(has), first = columns.find((c) => data.training.columns[c].headline);
  if (columns.length) select.value = String(first === undefined ? columns[0] : first);
}

function setUpTraining() {
  const method = one("#training-method"), amount = one("#training-amount"), measure = one("#training-measure"), host = one("#training-chart");
  const here = () => runs.key.map((_, i) => i).filter((i) => runs.task[i] === picker.task() && data.training.runs[i]);
  const middle = (values, select) => (values.includes(select.value) ? select.value : values[Math.floor(values.length / 2)]);
  const picker = taskPicker("training", () => {
    const present = new Set(here().map((i) => runs.method[i])), own = data.methods.map((m) => m.name).filter((m) => present.delete(m));
    fill(method, [...own, ...present].map((m) => [m, m]));
    amounts();
  });
  function amounts() {
    const known = new Set(here().filter((i) => runs.method[i] === method.value).map((i) => runs.amount[i])), ordered = [...known].sort((a, b) => compare(sortKey(a), sortKey(b)));
    fill(amount, ordered.map((a) => [a, a]), middle(ordered, amount));
    draw();
  }
  function draw() {
    const chosen = here().filter((i) => runs.method[i] === method.value && runs.amount[i] === amount.value);
    keepMeasure(measure, chosen);
    const lines = drawTraining(host, chosen, controlsAmong(chosen), Number(measure.value));
    one("#training-caption").textContent = captionOf(lines, Number(measure.value));
    trainingTable(one("#training-table"), lines, Number(measure.value));
  }
  fillMeasures(measure);
  method.addEventListener("change", amounts);
  for (const select of [amount, measure]) select.addEventListener("change", draw);
  picker.update();
  return draw;
}

/* The pane of one run */

let shownRun = null;

function settingsOf(i) {
  return Object.assign({}, ...data.settings.sets[runs.settings[i]].map((part) => data.settings.parts[part]), { seed: String(runs.seed[i]) });
}

/* Neighbours by kind: what they share with the run. */
function neighbours(i) {
  const all = runs.key.map((_, k) => k).filter((k) => k !== i && runs.task[k] === runs.task[i]);
  const found = {
    "its control": runs.control[i] === null || runs.control[i] === i ? [] : [runs.control[i]],
    "other seeds": all.filter((k) => runs.method[k] === runs.method[i] && runs.amount[k] === runs.amount[i]),
    "other methods": all.filter((k) => runs.method[k] !== runs.method[i] && runs.amount[k] === runs.amount[i] && runs.seed[k] === runs.seed[i]),
  };
  return Object.fromEntries(Object.entries(found).filter(([, members]) => members.length));
}

function settingsTable(i, beside, differencesOnly) {
  const columns = [i, ...beside].map((k) => ({ k, settings: settingsOf(k) })), names = unique(columns.flatMap((c) => Object.keys(c.settings)));
  const differs = (name) => columns.some((c) => c.settings[name] !== columns[0].settings[name]);
  const different = names.filter(differs), shown = differencesOnly ? different : names;
  const table = make("table", { class: "settings" }), head = make("tr", {}, make("thead", {}, table)), body = make("tbody", {}, table);
  make("th", { scope: "col", class: "text" }, head, "setting");
  columns.forEach(({ k }, at) => {
    const heading = make("th", { scope: "col", class: "text" }, head);
    if (at) make("a", { class: "run", href: `#run-${runs.key[k]}` }, heading, nameOf(k)); else heading.textContent = "this run";
  });
  const results = [[kindsOf(i).names[0][3], headline], ["compression", (k) => times(runs.compression[k])], ["epochs", (k) => (runs.epochs[k] === null ? "–" : runs.epochs[k])]];
  const add = (name, texts, mark) => {
    const row = make("tr", {}, body);
    make("th", { scope: "row" }, row, name);
    texts.forEach((text, at) => make("td", { class: mark && at && text !== texts[0] ? "text other" : "text" }, row, text === undefined ? "–" : text));
  };
  if (beside.length) results.forEach(([name, value]) => add(name, columns.map((c) => value(c.k)), false));
  shown.forEach((name) => add(name, columns.map((c) => c.settings[name]), true));
  one("#run-settings").replaceChildren(table);
  one("#run-told").textContent = beside.length ? `${different.length} of ${names.length} settings differ.` : `${names.length} settings.`;
}

function showRun(i) {
  shownRun = i;
  const beside = neighbours(i);
  one("#run-title").textContent = `${nameOf(i)}, on ${runs.task[i]}`;
  one("#run-key").replaceChildren("Run ", make("code", {}, null, runs.key[i]), " ", make("span", { class: `badge ${runs.status[i]}` }, null, runs.status[i]));
  one("#run-error").textContent = runs.error[i] || "";
  one("#run-error").hidden = !runs.error[i];
  const kinds = kindsOf(i), label = (name) => (kinds.of[name] || [name])[0];
  const rows = Object.entries(runs.metrics).filter(([, values]) => values[i] !== null).map(([name, values]) => [label(name), inUnit(values[i], kinds.of[name])]);
  rows.push([`${kinds.names[0][3]} before fine-tuning`, inUnit(runs.before[i], kinds.names[0])], ["compression", times(runs.compression[i])], ["theoretical speedup", times(runs.speedup[i])], ["epochs", runs.epochs[i] === null ? "–" : `${runs.epochs[i]}, measured after ${runs.selected[i] === null ? "the last" : runs.selected[i]}`], ["time", seconds(runs.seconds[i])]);
  one("#run-numbers").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, null, name), make("dd", {}, null, value)]));
  fill(one("#run-beside"), [...Object.entries(beside).map(([kind, members]) => [kind, members.length > 1 ? `${kind} (${members.length})` : kind]), ["", "nothing"]], one("#run-beside").value in beside ? one("#run-beside").value : Object.keys(beside)[0] || "");
  if (!one("#run").open) one("#run").showModal();
  one("#run").scrollTop = 0;
  drawRun();
}

function drawRun() {
  keepMeasure(one("#run-measure"), [shownRun]);
  const i = shownRun, beside = neighbours(i), differences = one("#run-differences"), kind = one("#run-beside").value;
  const lines = drawTraining(one("#run-chart"), [i], beside["its control"] || [], Number(one("#run-measure").value));
  one("#run-caption").textContent = captionOf(lines, Number(one("#run-measure").value));
  settingsTable(i, beside[kind] || [], differences.checked && kind !== "");
}

/* Whether an address names a run; it is then shown. */
function openRunOf(hash) {
  const i = hash.startsWith("#run-") ? runs.key.indexOf(hash.slice(5)) : -1;
  if (i >= 0) showRun(i);
  return i >= 0;
}

function setUpRun() {
  const pane = one("#run");
  fillMeasures(one("#run-measure"));
  for (const name of ["#run-measure", "#run-beside", "#run-differences"]) one(name).addEventListener("change", drawRun);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.run");
    if (link && openRunOf(link.hash)) { event.preventDefault(); history.replaceState(null, "", link.hash); }
  });
  window.addEventListener("hashchange", () => openRunOf(location.hash));
  pane.addEventListener("close", () => history.replaceState(null, "", "#runs"));
  pane.addEventListener("click", (event) => { if (event.target === pane) pane.close(); });  // the backdrop
}
