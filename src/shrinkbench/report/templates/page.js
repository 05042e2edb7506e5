
/* The page's controls: what is chosen, and what is drawn again when a choice changes. */

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
  fill(axis, data.axes.map((a) => [a.key, a.label]));
  const picker = taskPicker("curve", () => {
    const own = data.tasks.find((t) => t.label === picker.task()).metrics;
    fill(metric, own.map((m) => [m.key, m.label]), own.some((m) => m.key === metric.value) ? metric.value : (own[0] || {}).key);
    draw();
  });
  function draw() {
    if (!metric.value) { host.replaceChildren(); make("p", { class: "soft" }, host, "Nothing of this task is finished."); return; }
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
  const metric = metricOf(data, options), axis = data.axes.find((a) => a.key === options.axis);
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

/* From white to dark blue; of black and white letters the one with more contrast, always above 4.5. */
function shadeOf(share) {
  const back = [11, 92, 173].map((dark) => Math.round(255 + share * (dark - 255)));
  const [r, g, b] = back.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return `background:rgb(${back});color:${(light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000" : "#fff"}`;
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
    methods.forEach((m) => addName(make("th", { scope: "col" }, head), `${m.name} ${entry.densities[m.name][target.value].achieved}`));
    entry.names.forEach((name, i) => {
      const row = make("tr", {}, body);
      addName(make("th", { scope: "row" }, row), name);
      make("td", {}, row, entry.totals[i].toLocaleString("en"));
      for (const m of methods) {
        const share = entry.densities[m.name][target.value].shares[i];
        make("td", { style: shadeOf(share) }, row, (100 * share).toFixed(share < 0.0995 ? 1 : 0));
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

function start() {
  setUpTables();
  setUpLedger();
  setUpRun();
  const drawings = [setUpTraining()];
  if (data.axes.length) {  // otherwise nothing was pruned
    drawings.push(setUpCurves(), setUpWeights(), drawPitfalls);
    setUpLayers();
    drawPitfalls();
  }
  document.querySelectorAll("details.more").forEach((d) => d.addEventListener("toggle", drawPitfalls));  // unseen charts have no width
  if (location.hash && !openRunOf(location.hash)) document.getElementById(location.hash.slice(1))?.scrollIntoView();  // drawing moved it
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;  // a phone's address bar changes the height only
    width = window.innerWidth;
    drawings.forEach((draw) => draw());
  });
  window.addEventListener("beforeprint", () => document.querySelectorAll("details[data-print]").forEach((d) => { d.open = true; }));
}

start();
