
const data = JSON.parse(document.getElementById("data").textContent);
const one = (selector) => document.querySelector(selector);
const unique = (values) => [...new Set(values)];

function fill(select, entries, wanted) {
  const kept = wanted !== undefined ? wanted : select.value;
  select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, null, text)));
  if (entries.some(([value]) => value === kept)) select.value = kept;
}

/* Tables: sort by any column, show the rows of one task or method, fold the rest, tell that they scroll. */

const OPEN_ROWS = 20;
const ASIDE = ["d_z", "superiority"];  // never wrapped: they may lie off the screen

/* A number where the text begins with one, so that "+0.43", "−2.1", "98.3 ± 0.2", "4×" and "< 0.001" sort as such. */
function sortKey(text) {
  const found = text.replace(/−/g, "-").replace(/,(?=\d{3})/g, "").match(/^([<>]?)\s*([+-]?\d+(?:\.\d+)?)/);
  if (!found) return text === "–" || text === "" ? null : text;
  return Number(found[2]) + { "<": -1e-9, ">": 1e-9 }[found[1] || ""] || Number(found[2]);
}

/* Missing values stand last whichever way; texts after numbers. */
function compare(a, b, falling) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === typeof b ? (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true })) : typeof a === "number" ? -1 : 1;
  return falling ? -order : order;
}

/* Buttons in the headings; a third press gives the order of the page back. */
function addSorting(headings, changed) {
  headings.forEach((heading, column) => {
    const button = make("button", { type: "button", class: "sort" });
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")];
      headings.forEach((h) => h.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", next);
      changed(next === "none" ? null : { column, falling: next === "descending" });
    });
  });
}

/* One table of the section: its rows, which of them are wanted, and how many of these are open. */
function setUpTable(holder) {
  const table = holder.querySelector("table"), body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
  const names = headings.map((h) => h.textContent), rows = [...body.rows], texts = rows.map((row) => [...row.cells].map((c) => c.textContent));
  const taskAt = names.indexOf("task"), methodsAt = ["method", "pruned network", "first", "second"].map((n) => names.indexOf(n)).filter((i) => i >= 0);
  const isOf = (text, method) => text === method || (text.startsWith(method) && /^ [^ ]*×/.test(text.slice(method.length)));
  const more = make("button", { type: "button", class: "all", "aria-expanded": "false" });
  const controls = new Set(Object.values(data.controls).flatMap((named) => Object.keys(named)));
  let sorting = null, wanted = { task: "", method: "" }, all = false;
  holder.querySelector(".scroll").after(more);
  rows.forEach((row) => row.querySelectorAll("th").forEach((th) => th.setAttribute("title", th.textContent)));
  body.querySelectorAll("td").forEach((td) => {  // signs stay with their numbers where a cell wraps
    const inner = td.firstElementChild || td;
    inner.textContent = inner.textContent.replace(/([<>±]) /g, "$1\u00a0");
  });
  names.forEach((name, at) => { if (ASIDE.includes(name)) rows.forEach((row) => row.cells[at].classList.add("aside")); });
  function isWanted(i) {
    const task = holder.dataset.task || (taskAt < 0 ? "" : texts[i][taskAt]), methods = methodsAt.map((at) => texts[i][at]);
    return (!wanted.task || !task || task === wanted.task) && (!wanted.method || !methods.length || methods.some((m) => isOf(m, wanted.method) || controls.has(m)));
  }
  function draw() {
    const found = rows.map((_, i) => i).filter(isWanted);
    if (sorting) found.sort((a, b) => compare(sortKey(texts[a][sorting.column]), sortKey(texts[b][sorting.column]), sorting.falling));
    body.replaceChildren(...(all ? found : found.slice(0, OPEN_ROWS)).map((i) => rows[i]));
    more.hidden = found.length <= OPEN_ROWS;
    more.setAttribute("aria-expanded", String(all));
    more.textContent = all ? `Show ${OPEN_ROWS} of ${found.length} rows` : `Show all ${found.length} rows`;
    holder.hidden = !found.length;
    return [found.length, rows.length];
  }
  more.addEventListener("click", () => { all = !all; draw(); });
  addSorting(headings, (chosen) => { sorting = chosen; draw(); });
  window.addEventListener("beforeprint", () => { all = true; draw(); });
  draw();
  return (chosen) => { wanted = chosen; return draw(); };
}

function setUpTables() {
  const task = one("#tables-task"), method = one("#tables-method"), holders = [...document.querySelectorAll("#tables .tabular")];
  const filters = holders.map(setUpTable);
  fill(task, [["", "all"], ...data.tasks.map((t) => [t.label, t.label])], "");
  fill(method, [["", "all"], ...data.methods.map((m) => [m.name, m.name])], "");
  one("#tables-filter").hidden = data.tasks.length < 2 && data.methods.length < 2;
  function filter() {
    const counts = filters.map((apply) => apply({ task: task.value, method: method.value }));
    const [shown, of] = [0, 1].map((k) => counts.reduce((sum, pair) => sum + pair[k], 0));
    one("#tables-count").textContent = task.value || method.value ? `${shown} of ${of} rows` : "";
    document.querySelectorAll("#tables .group").forEach((group) => { group.hidden = ![...group.querySelectorAll(".tabular")].some((h) => !h.hidden); });
  }
  for (const select of [task, method]) select.addEventListener("change", filter);
  document.querySelectorAll(".scroll").forEach(hintAtScrolling);
}

/* A fading edge and a line of words where a table is wider than its place. */
function hintAtScrolling(region) {
  const hint = make("p", { class: "hint", "aria-hidden": "true", hidden: "" }, null, "Wider than the screen: swipe or scroll →");
  region.before(hint);
  function tell() {
    const rest = region.scrollWidth - region.clientWidth - region.scrollLeft;
    region.toggleAttribute("data-more", rest > 2);
    hint.hidden = region.scrollWidth - region.clientWidth <= 2;
  }
  region.addEventListener("scroll", tell, { passive: true });
  const watch = new ResizeObserver(tell);
  watch.observe(region);
  const inside = new MutationObserver(() => { [...region.children].forEach((child) => watch.observe(child)); tell(); });
  inside.observe(region, { childList: true });
  [...region.children].forEach((child) => watch.observe(child));
}
