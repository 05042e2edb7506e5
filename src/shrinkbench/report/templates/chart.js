"use strict";
/* Tradeoff charts: one function draws, one follows pointer and keyboard. No library, no network. */

const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes, parent, text) {
  const element = tag === "text" || SHAPES.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}
const SHAPES = new Set(["svg", "g", "path", "line", "rect", "circle", "polyline", "title", "desc"]);

/* Outlines of the markers, in a box of radius 1; the same shapes as in the figures for papers. */
const MARKERS = {
  o: "M1 0A1 1 0 1 1 -1 0A1 1 0 1 1 1 0Z", s: "M-.9 -.9H.9V.9H-.9Z", "^": "M0 -1.1L1 .8H-1Z", D: "M0 -1.2L1.2 0L0 1.2L-1.2 0Z",
  v: "M0 1.1L1 -.8H-1Z", P: "M-.4 -1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
  X: "M-1.1 -.6L-.6 -1.1L0 -.5L.6 -1.1L1.1 -.6L.5 0L1.1 .6L.6 1.1L0 .5L-.6 1.1L-1.1 .6L-.5 0Z",
  p: "M0 -1.1L1.05 -.34L.65 .89H-.65L-1.05 -.34Z",
  "*": "M0 -1.3L.35 -.48L1.24 -.4L.57 .18L.76 1.05L0 .6L-.76 1.05L-.57 .18L-1.24 -.4L-.35 -.48Z",
  h: "M0 -1.1L.95 -.55V.55L0 1.1L-.95 .55V-.55Z", "<": "M-1.1 0L.8 -1V1Z",
  ">": "M1.1 0L-.8 -1V1Z", d: "M0 -1.2L.7 0L0 1.2L-.7 0Z",
};

function marker(method, x, y, radius, parent) {
  return make("path", {
    d: MARKERS[method.marker], transform: `translate(${x} ${y}) scale(${radius})`, fill: method.colour,
    stroke: "#fff", "stroke-width": 0.28,
  }, parent);
}

function swatch(method) {
  const svg = make("svg", { width: 34, height: 14, viewBox: "0 0 34 14", "aria-hidden": "true" });
  make("line", { x1: 1, x2: 33, y1: 7, y2: 7, stroke: method.colour, "stroke-width": 2, "stroke-dasharray": method.dash }, svg);
  marker(method, 17, 7, 4.2, svg);
  return svg;
}

/* A number that is no percentage, to four digits; of very large and small ones, the power of ten. */
function plain(value) {
  const size = Math.abs(value);
  if (size === 0) return "0.000";
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return value.toFixed(Math.max(0, 3 - Math.floor(Math.log10(size))));
}

/* What a metric of a task is called and how it is shown. */
const metricOf = (data, options) => data.tasks.find((t) => t.label === options.task).metrics.find((m) => m.key === options.metric);

function show(value, metric, digits) {
  if (value === null || value === undefined) return "–";
  if (value < 0) return `−${show(-value, metric, digits)}`;
  if (metric.percent) return `${(100 * value).toFixed(digits === undefined ? 2 : digits)} %`;
  return metric.unit ? `${plain(value)} ${metric.unit}` : plain(value);
}

function steps(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((s) => s >= raw);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  return ticks;
}

/* Means of a task's controls, by name. */
function controlsOf(data, options) {
  return Object.entries(data.controls[options.task] || {}).map(([name, metrics]) => ({ name, ...metrics[options.metric] })).filter((c) => c.mean !== null && c.mean !== undefined);
}
const CONTROL_DASHES = ["3 3", "9 3", "9 3 2 3", "1 4"];

/* Points of the chosen curves, in data units. Every curve starts at the control of its method. */
function series(data, options) {
  const curves = data.curves[options.task] || {};
  return data.methods.filter((m) => curves[m.name] && options.methods.has(m.name)).map((method) => {
    const curve = curves[method.name], values = curve[options.metric] || { mean: [], std: [], low: [], high: [], seeds: [] };
    const points = [];
    curve.amount.forEach((amount, i) => {
      const x = (curve[options.axis] || [])[i], y = values.mean[i];
      if (x !== null && x !== undefined && y !== null && y !== undefined) {
        points.push({ x, y, change: values.change[i], std: values.std[i], low: values.low[i], high: values.high[i], n: curve.n[i], amount, speed: (curve.theoretical_speedup || [])[i],
          size: (curve.compression || [])[i], seeds: values.seeds[i], seedX: curve.seed_x[options.axis][i] });
      }
    });
    points.sort((a, b) => a.x - b.x);
    return { method, points, start: values.start === undefined ? null : values.start };
  });
}

function extent(lines, controls, options, metric) {
  let xs = [1, 2], ys = [];
  for (const line of lines) {
    for (const p of line.points) {
      xs.push(p.x);
      ys.push(p.y - (p.std || 0), p.y + (p.std || 0));
      if (options.seeds) ys.push(...p.seeds.filter((v) => v !== null));
    }
  }
  for (const c of controls) ys.push(c.mean - (c.std || 0), c.mean + (c.std || 0));
  if (!ys.length) ys = [0, 1];
  let low = Math.min(...ys), high = Math.max(...ys);
  const pad = (high - low || 0.02) * 0.06;
  const least = Math.min(...lines.flatMap((line) => line.points.map((p) => p.y)), ...controls.map((c) => c.mean));
  const log = !metric.percent && least > 0 && high / least > 50;  // as in the figures for papers
  return { x: [Math.min(...xs), Math.max(...xs)], y: log ? [Math.log10(least) - 0.06, Math.log10(high) + 0.06] : [low - pad, high + pad], log };
}

/** A title that does not fit begins at the edge, and is set narrower where that is not enough. */
function fitTitle(title, width) {
  const room = width - 8, length = title.getComputedTextLength();
  if (Number(title.getAttribute("x")) + length <= room) return;
  title.setAttribute("x", 4);
  if (length > room) { title.setAttribute("textLength", room); title.setAttribute("lengthAdjust", "spacingAndGlyphs"); }
}

function drawChart(host, data, options) {
  host.replaceChildren();
  const metric = metricOf(data, options), axis = data.axes.find((a) => a.key === options.axis);
  const width = Math.max(260, host.clientWidth || 640), height = Math.round(Math.min(options.height || 430, Math.max(230, width * 0.72)));
  const box = { left: 58, right: width - 14, top: options.title ? 26 : 12, bottom: height - 44 };
  const lines = series(data, options), controls = controlsOf(data, options);
  const range = extent(lines, controls, options, metric);
  const [x0, x1] = range.x.map(Math.log2), [y0, y1] = range.y;
  const X = (v) => box.left + 8 + ((Math.log2(v) - x0) / (x1 - x0)) * (box.right - box.left - 16);
  const scaled = (v) => (range.log ? Math.max(y0, Math.log10(Math.max(v, Number.MIN_VALUE))) : v);
  const Y = (v) => box.bottom - ((scaled(v) - y0) / (y1 - y0)) * (box.bottom - box.top);
  const label = `${metric.label} against ${axis.label} on ${options.task}, ${lines.length} methods`;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, host);
  if (options.interactive) {
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-label", `${label}. Arrow keys read the points: left and right along a method, up and down between methods.`);
  }
  const heights = steps(y0, y1, Math.max(4, Math.round((box.bottom - box.top) / 55)));
  const ticks = (range.log ? heights.map((power) => 10 ** power) : heights).map((tick) => [tick, metric.percent ? `${+(100 * tick).toFixed(2)} %` : `${+tick.toPrecision(3)}`]);
  box.left = Math.max(box.left, 27 + 6.6 * Math.max(0, ...ticks.map(([, text]) => text.length)));  // beside the axis's own label
  if (options.title) fitTitle(make("text", { x: box.left, y: 15, class: "title" }, svg, options.title), width);
  const grid = make("g", { stroke: "#e3e7eb" }, svg), words = make("g", {}, svg);
  for (const [tick, text] of ticks) {
    make("line", { x1: box.left, x2: box.right, y1: Y(tick), y2: Y(tick) }, grid);
    make("text", { x: box.left - 7, y: Y(tick) + 4, "text-anchor": "end" }, words, text);
  }
  for (let k = 0; k <= x1 + 0.01; k++) {
    make("line", { x1: X(2 ** k), x2: X(2 ** k), y1: box.top, y2: box.bottom }, grid);
    make("text", { x: X(2 ** k), y: box.bottom + 18, "text-anchor": "middle" }, words, `${2 ** k}×`);
  }
  make("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, words, `${axis.label} (log scale)`);
  make("text", { transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, words, `${metric.label}${range.log ? " (log scale)" : ""}`);
  make("path", { d: `M${box.left} ${box.top}V${box.bottom}H${box.right}`, fill: "none", stroke: "#8b949e" }, svg);
  const written = [];  // heights of the names of controls, so that none is written over another
  controls.forEach((control, i) => {
    const half = control.std || 0, at = Y(control.mean);
    make("rect", { x: box.left, width: box.right - box.left, y: Y(control.mean + half), height: Math.max(0, Y(control.mean - half) - Y(control.mean + half)), fill: "#333", opacity: 0.1 }, svg);
    make("line", { x1: box.left, x2: box.right, y1: at, y2: at, stroke: "#333", "stroke-width": 1.3, "stroke-dasharray": CONTROL_DASHES[i % CONTROL_DASHES.length] }, svg);
    let y = at - 5;
    while (written.some((other) => Math.abs(other - y) < 13)) y += 13;
    written.push(y);
    make("text", { x: box.right - 2, y, "text-anchor": "end" }, svg, control.name);
  });
  const places = [];
  for (const line of lines) {
    const group = make("g", { "data-method": line.method.name, stroke: line.method.colour, fill: "none" }, svg);
    const path = line.points.map((p) => [X(p.x), Y(p.y)]);
    if (line.start !== null) path.unshift([X(1), Y(line.start)]);
    make("polyline", { points: path.map((p) => p.join(",")).join(" "), "stroke-width": 2, "stroke-dasharray": line.method.dash, "stroke-linejoin": "round" }, group);
    for (const p of line.points) {
      const x = X(p.x), y = Y(p.y);
      if (p.std) make("path", { d: `M${x} ${Y(p.y - p.std)}V${Y(p.y + p.std)}M${x - 3} ${Y(p.y - p.std)}h6M${x - 3} ${Y(p.y + p.std)}h6`, "stroke-width": 1.3 }, group);
      if (options.seeds) p.seeds.forEach((v, i) => v !== null && make("circle", { cx: X(p.seedX[i]), cy: Y(v), r: 2.2, fill: line.method.colour, stroke: "none", opacity: 0.45 }, group));
      marker(line.method, x, y, 4.6, group);
      places.push({ x, y, point: p, line });
    }
  }
  if (options.interactive) follow(host, svg, places, { metric, axis, width });
}

function describe(place, context) {
  const { point: p, line } = place, { metric } = context;
  const spread = p.std !== null && p.std !== undefined ? ` ± ${metric.percent ? (100 * p.std).toFixed(2) : plain(p.std)}` : "";
  const rows = [`${show(p.y, metric).replace(" %", "")}${spread}${metric.percent ? " %" : ""} (n = ${p.n})`];
  if (p.size !== undefined && p.size !== null) rows.push(`compression ${+p.size.toFixed(2)}× (asked: ${p.amount})`);
  if (p.speed !== undefined && p.speed !== null) rows.push(`theoretical speedup ${+p.speed.toFixed(2)}×`);
  if (p.change !== null && p.change !== undefined) {  // run by run: another mean than that of all controls where a seed has none
    const size = metric.percent ? `${(100 * Math.abs(p.change)).toFixed(2)} points` : show(Math.abs(p.change), metric);
    const told = metric.higher ? "" : `, ${p.change === 0 ? "as good" : p.change < 0 ? "better" : "worse"}`;
    rows.push(`${p.change >= 0 ? "+" : "−"}${size} from its control${told}`);
  }
  return { name: line.method.name, rows };
}

/* Tooltip under the pointer, arrow keys for the keyboard, both through one live region. */
function follow(host, svg, places, context) {
  const tip = make("div", { class: "tip", role: "status", "aria-live": "polite", hidden: "" }, host);
  const ring = make("circle", { r: 8, fill: "none", stroke: "#1b1f24", "stroke-width": 1.6, visibility: "hidden" }, svg);
  let current = -1;
  function select(index) {
    current = index;
    const place = places[index];
    if (!place) { tip.hidden = true; ring.setAttribute("visibility", "hidden"); return; }
    const { name, rows } = describe(place, context), scale = svg.clientWidth ? svg.clientWidth / context.width : 1;
    tip.replaceChildren(make("b", {}, null, name), ...rows.map((row) => make("span", { style: "display:block" }, null, row)));
    tip.hidden = false;
    const left = Math.min(Math.max(0, place.x * scale + 12), Math.max(0, host.clientWidth - tip.offsetWidth));
    const above = place.y * scale - tip.offsetHeight - 12;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 0 ? above : place.y * scale + 14}px`;
    ring.setAttribute("cx", place.x); ring.setAttribute("cy", place.y); ring.setAttribute("visibility", "visible");
  }
  function nearest(event) {
    const frame = svg.getBoundingClientRect(), scale = context.width / frame.width;
    const x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
    let best = -1, distance = 40 ** 2;
    places.forEach((p, i) => { const d = (p.x - x) ** 2 + (p.y - y) ** 2; if (d < distance) { best = i; distance = d; } });
    return best;
  }
  svg.addEventListener("pointermove", (event) => select(nearest(event)));
  svg.addEventListener("pointerdown", (event) => select(nearest(event)));
  svg.addEventListener("pointerleave", () => select(-1));
  svg.addEventListener("blur", () => select(-1));
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (event.key === "Escape") select(-1);
    if (!move || !places.length) return;
    event.preventDefault();
    if (current < 0) { select(0); return; }
    const names = [...new Set(places.map((p) => p.line.method.name))], own = places[current];
    if (move[0]) {
      const mine = places.map((p, i) => i).filter((i) => places[i].line === own.line), at = mine.indexOf(current);
      select(mine[Math.min(mine.length - 1, Math.max(0, at + move[0]))]);
    } else {
      const other = names[(names.indexOf(own.line.method.name) + move[1] + names.length) % names.length];
      const theirs = places.map((p, i) => i).filter((i) => places[i].line.method.name === other);
      select(theirs.reduce((a, b) => (Math.abs(places[b].x - own.x) < Math.abs(places[a].x - own.x) ? b : a)));
    }
  });
}
