"use strict";
/* The page's controls: what is chosen, and what is drawn again when a choice changes. */

const data = JSON.parse(document.getElementById("data").textContent);
const one = (selector) => document.querySelector(selector);
const unique = (values) => [...new Set(values)];

function fill(select, entries, wanted) {
  const kept = wanted !== undefined ? wanted : select.value;
  select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, null, text)));
  if (entries.some(([value]) => value === kept)) select.value = kept;
}

/* Dataset, network and variant choose a task; variants are other weights, recipes or data of the same pair. */
function taskPicker(prefix, changed) {
  const dataset = one(`#${prefix}-dataset`), model = one(`#${prefix}-model`), variant = one(`#${prefix}-variant`);
  const matching = () => data.tasks.filter((t) => t.dataset === dataset.value);
  function update() {
    fill(model, unique(matching().map((t) => t.model)).map((m) => [m, m]));
    const variants = matching().filter((t) => t.model === model.value);
    fill(variant, variants.map((t) => [t.label, t.variant || "standard"]));
    variant.closest("label").hidden = variants.length < 2;
    changed();
  }
  fill(dataset, unique(data.tasks.map((t) => t.dataset)).map((d) => [d, d]));
  for (const select of [dataset, model, variant]) select.addEventListener("change", update);
  return { update, task: () => variant.value };
}

/* Tradeoff curves */

const chosen = new Set(data.methods.map((m) => m.name));

function buildLegend(redraw) {
  const list = one("#legend");
  for (const method of data.methods) {
    const button = make("button", { type: "button", "aria-pressed": "true", "data-method": method.name });
    button.append(swatch(method), document.createTextNode(method.name));
    button.addEventListener("click", () => {
      if (chosen.has(method.name)) chosen.delete(method.name); else chosen.add(method.name);
      button.setAttribute("aria-pressed", String(chosen.has(method.name)));
      redraw();
    });
    make("li", {}, list).append(button);
  }
  const all = make("button", { type: "button" }, make("li", {}, list), "all / none");
  all.addEventListener("click", () => {
    const on = chosen.size < data.methods.length;
    chosen.clear();
    if (on) data.methods.forEach((m) => chosen.add(m.name));
    list.querySelectorAll("[aria-pressed]").forEach((b) => b.setAttribute("aria-pressed", String(on)));
    redraw();
  });
}

function setUpCurves() {
  const metric = one("#curve-metric"), axis = one("#curve-axis"), seeds = one("#curve-seeds"), host = one("#curve");
  fill(metric, data.metrics.map((m) => [m.key, m.label]));
  fill(axis, data.axes.map((a) => [a.key, a.label]));
  const picker = taskPicker("curve", draw);
  function draw() {
    const options = { task: picker.task(), metric: metric.value, axis: axis.value, methods: chosen, seeds: seeds.checked, interactive: true, height: 520 };
    drawChart(host, data, options);
    curveTable(options);
  }
  for (const control of [metric, axis, seeds]) control.addEventListener("change", draw);
  buildLegend(draw);
  picker.update();
  return draw;
}

function curveTable(options) {
  const metric = data.metrics.find((m) => m.key === options.metric), axis = data.axes.find((a) => a.key === options.axis);
  const table = make("table"), head = make("tr", {}, make("thead", {}, table)), body = make("tbody", {}, table);
  table.prepend(make("caption", {}, null, `${metric.label} on ${options.task}: mean ± sample standard deviation over n seeds, and the 95 % t interval of the mean`));
  for (const text of ["method", axis.label, metric.label, "95 % interval", "n"]) make("th", { scope: "col" }, head, text);
  for (const line of series(data, options)) {
    for (const p of line.points) {
      const row = make("tr", {}, body);
      make("th", { scope: "row" }, row, line.method.name);
      make("td", {}, row, `${+p.x.toFixed(3)}×`);
      make("td", {}, row, p.std === null ? show(p.y, metric) : `${show(p.y, metric)} ± ${show(p.std, metric)}`);
      make("td", {}, row, p.low === null ? "–" : `${show(p.low, metric)} to ${show(p.high, metric)}`);
      make("td", {}, row, p.n);
    }
  }
  one("#curve-table").replaceChildren(table);
}

/* Layer densities: a table whose cells are shaded, so it reads without colour too. */

function setUpLayers() {
  const target = one("#layers-target"), host = one("#layers-heat");
  const picker = taskPicker("layers", () => {
    const entry = data.layers[picker.task()];
    const known = new Set(entry ? Object.values(entry.densities).flatMap((d) => Object.keys(d)) : []);
    const targets = data.amounts.filter((amount) => known.has(amount));
    fill(target, targets.map((t) => [t, t]), targets.includes(target.value) ? target.value : targets[Math.floor(targets.length / 2)]);
    draw();
  });
  function draw() {
    const entry = data.layers[picker.task()];
    host.replaceChildren();
    if (!entry) { make("p", { class: "soft" }, host, "These runs record no layers."); return; }
    const methods = data.methods.filter((m) => (entry.densities[m.name] || {})[target.value]);
    one("#layers-caption").textContent = `Share of weights kept in every layer of ${picker.task()} at ${target.value}, mean over seeds, in %.`;
    const table = make("table", { class: "heat" }, host);
    const head = make("tr", {}, make("thead", {}, table)), body = make("tbody", {}, table);
    make("th", { scope: "col", class: "text" }, head, "layer");
    make("th", { scope: "col" }, head, "weights");
    methods.forEach((m) => make("th", { scope: "col" }, head, `${m.name} ${entry.densities[m.name][target.value].achieved}`));
    entry.names.forEach((name, i) => {
      const row = make("tr", {}, body);
      make("th", { scope: "row" }, row, name);
      make("td", {}, row, entry.totals[i].toLocaleString("en"));
      for (const m of methods) {
        const share = entry.densities[m.name][target.value].shares[i];
        const shade = Math.round(255 - 205 * share);
        make("td", { style: `background:rgb(${shade},${Math.round(255 - 130 * share)},255);color:${share > 0.62 ? "#fff" : "#1b1f24"}` }, row, (100 * share).toFixed(share < 0.0995 ? 1 : 0));
      }
    });
  }
  target.addEventListener("change", draw);
  picker.update();
}

/* Weight distributions before pruning and after fine-tuning */

function setUpWeights() {
  const method = one("#weights-method"), target = one("#weights-target"), host = one("#weights-chart");
  const here = () => data.histograms[picker.task()] || {};
  const picker = taskPicker("weights", () => { fill(method, Object.keys(here()).map((m) => [m, m])); targets(); });
  function targets() {
    const own = here()[method.value] || {}, keys = data.amounts.filter((amount) => own[amount]);
    fill(target, keys.map((t) => [t, t]), keys.includes(target.value) ? target.value : keys[Math.floor(keys.length / 2)]);
    draw();
  }
  function draw() {
    const h = (here()[method.value] || {})[target.value];
    host.replaceChildren();
    if (!h) { make("p", { class: "soft" }, host, "These runs record no weight distribution."); return; }
    drawHistogram(host, h, `${method.value} at ${target.value} ${h.achieved}`.trim());
  }
  method.addEventListener("change", targets);
  target.addEventListener("change", draw);
  picker.update();
  return draw;
}

function drawHistogram(host, h, title) {
  const width = Math.max(260, host.clientWidth || 640), height = Math.min(360, Math.max(220, width * 0.5)), bins = h.before.length;
  const box = { left: 52, right: width - 12, top: 10, bottom: height - 42 }, most = Math.max(1, ...h.before, ...h.after);
  const X = (i) => box.left + (i / bins) * (box.right - box.left), Y = (c) => box.bottom - (Math.log10(1 + c) / Math.log10(1 + most)) * (box.bottom - box.top);
  const kept = h.after.reduce((a, b) => a + b, 0), total = h.before.reduce((a, b) => a + b, 0);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Distribution of weights, ${title}: ${kept} of ${total} weights kept` }, host);
  one("#weights-caption").textContent = `${title}, seed ${h.seed}: ${kept.toLocaleString("en")} of ${total.toLocaleString("en")} weights kept. Counts on a log scale; grey: before pruning, blue: kept, after fine-tuning.`;
  for (let k = 0; 10 ** k <= most * 1.5; k++) {
    make("line", { x1: box.left, x2: box.right, y1: Y(10 ** k), y2: Y(10 ** k), stroke: "#e3e7eb" }, svg);
    make("text", { x: box.left - 6, y: Y(10 ** k) + 4, "text-anchor": "end" }, svg, (10 ** k).toLocaleString("en"));
  }
  const area = (counts) => { let d = `M${box.left} ${box.bottom}`; counts.forEach((c, i) => { d += `V${Y(c)}H${X(i + 1)}`; }); return `${d}V${box.bottom}Z`; };
  make("path", { d: area(h.before), fill: "#c9ced4" }, svg);
  make("path", { d: area(h.after), fill: "#0072B2", opacity: 0.75, stroke: "#00466e" }, svg);
  for (const share of [0, 0.25, 0.5, 0.75, 1]) make("text", { x: X(share * bins), y: box.bottom + 17, "text-anchor": "middle" }, svg, (h.low + share * (h.high - h.low)).toPrecision(2));
  make("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, svg, "weight");
}

/* Pitfalls: each card holds its own small charts */

function drawPitfalls() {
  data.pitfalls.forEach((panels, index) => {
    const host = one(`#pitfall-${index}`);
    if (!host) return;
    const drawable = panels.filter((p) => data.axes.some((a) => a.key === p.axis));
    host.replaceChildren(...drawable.map(() => make("div", { class: "chart" })));  // all first: they share the width
    drawable.forEach((panel, i) => drawChart(host.children[i], data, { ...panel, methods: new Set(panel.methods), title: panel.task, height: 260, seeds: panel.methods.length === 1 }));
    const names = unique(panels.flatMap((p) => p.methods)), key = one(`#pitfall-key-${index}`);
    if (key) key.replaceChildren(...data.methods.filter((m) => names.includes(m.name)).map((m) => { const entry = make("span", { class: "entry" }); entry.append(swatch(m), ` ${m.name}`); return entry; }));
  });
}

/* Ledger: filter and pages over columns of plain values */

function setUpLedger() {
  const ledger = data.ledger, status = one("#ledger-status"), words = one("#ledger-search"), body = one("#ledger-body"), size = 50;
  const columns = ["key", "status", "task", "method", "amount", "seed", "top1", "compression", "speedup", "epochs", "seconds", "error"];
  const texts = ledger.key.map((_, i) => columns.map((c) => ledger[c][i]).join(" ").toLowerCase());
  let page = 0;
  function draw() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = texts.map((_, i) => i).filter((i) => (!status.value || ledger.status[i] === status.value) && wanted.every((w) => texts[i].includes(w)));
    const pages = Math.max(1, Math.ceil(rows.length / size));
    page = Math.min(Math.max(0, page), pages - 1);
    body.replaceChildren(...rows.slice(page * size, (page + 1) * size).flatMap((i) => {
      const row = make("tr");
      make("th", { scope: "row" }, row).append(make("code", {}, null, ledger.key[i]));
      make("span", { class: `badge ${ledger.status[i]}` }, make("td", { class: "text" }, row), ledger.status[i]);
      make("td", { class: "text" }, row, ledger.task[i]);
      make("td", { class: "text" }, row, ledger.method[i]);
      make("td", {}, row, ledger.amount[i]);
      make("td", {}, row, ledger.seed[i]);
      make("td", {}, row, ledger.top1[i] === null ? "–" : `${(100 * ledger.top1[i]).toFixed(2)} %`);
      make("td", {}, row, ledger.compression[i] === null ? "–" : `${ledger.compression[i]}×`);
      make("td", {}, row, ledger.speedup[i] === null ? "–" : `${ledger.speedup[i]}×`);
      make("td", {}, row, ledger.epochs[i] === null ? "–" : ledger.epochs[i]);
      make("td", {}, row, ledger.seconds[i] === null ? "–" : `${ledger.seconds[i].toFixed(1)} s`);
      if (!ledger.error[i]) return [row];
      const reason = make("tr");
      make("td", { class: "long", colspan: 11 }, reason, ledger.error[i]);
      return [row, reason];
    }));
    one("#ledger-count").textContent = `${rows.length} of ${texts.length} runs, page ${page + 1} of ${pages}`;
    one("#ledger-back").disabled = page === 0;
    one("#ledger-next").disabled = page >= pages - 1;
  }
  for (const control of [status, words]) control.addEventListener("input", () => { page = 0; draw(); });
  one("#ledger-back").addEventListener("click", () => { page -= 1; draw(); });
  one("#ledger-next").addEventListener("click", () => { page += 1; draw(); });
  draw();
}

function start() {
  if (!data.axes.length) return setUpLedger();  // nothing was pruned, so there is nothing to draw
  const drawCurves = setUpCurves();
  setUpLayers();
  const drawWeights = setUpWeights();
  drawPitfalls();
  setUpLedger();
  document.querySelectorAll("details.more").forEach((d) => d.addEventListener("toggle", drawPitfalls));  // unseen charts have no width
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();  // drawing moved it
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;  // a phone's address bar changes the height only
    width = window.innerWidth;
    drawCurves(); drawWeights(); drawPitfalls();
  });
  window.addEventListener("beforeprint", () => document.querySelectorAll("details[data-print]").forEach((d) => { d.open = true; }));
}

start();
