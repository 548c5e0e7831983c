import { download, get, key, start } from "/static/api.js";
import { fill, h, number } from "/static/dom.js";

const jobs = new URLSearchParams(location.search).getAll("job");
const path = `/v1/comparisons?${jobs.map((id) => `job=${encodeURIComponent(id)}`).join("&")}`;

start(async (page) => {
  if (!jobs.length) {
    fill(page, h("h1", {}, "Comparison"), h("p", { class: "lead" }, "Pick finished jobs on the ", h("a", { href: "/jobs" }, "list of jobs"), "."));
    return;
  }
  const found = await get(path);
  fill(
    page,
    h("h1", {}, "Comparison"),
    h("p", { class: "lead" }, `${jobs.length} job${jobs.length > 1 ? "s" : ""} beside ${originals(found)}. The best of each row stands out.`),
    found.warnings.length ? h("div", { class: "notice" }, found.warnings.map((text) => h("p", {}, text))) : null,
    comparisonTable(found),
    h("div", { class: "row" }, save("html", "Page with charts"), save("csv", "CSV"), save("json", "JSON")),
  );
});

function originals(found) {
  const count = found.rows.filter((row) => row.kind === "original").length;
  return count > 1 ? `${count} originals` : "the original";
}

// Models are the columns: there are fewer of them than figures.
function comparisonTable(found) {
  const shown = found.columns.filter((column) => found.rows.some((row) => row.values[column.key] !== null));
  const verdicts = h("tr", {}, h("th", {}, ""), found.rows.map((row) => h("td", { class: "number verdict-cell" }, row.verdict)));
  const body = [verdicts, ...shown.map((column) => line(column, found.rows))];
  const head = h("tr", {}, h("th", {}, ""), found.rows.map(title));
  return h("div", { class: "panel table" }, h("table", { class: "figures" }, h("thead", {}, head), h("tbody", {}, body)));
}

function title(row) {
  const name = row.kind === "job" ? h("a", { href: `/jobs/${row.id}` }, row.name) : row.name;
  const beaten = row.kind === "job" && !row.pareto;
  return h("th", { class: "number", title: row.id }, name, h("span", { class: "sub" }, row.kind === "original" ? "original" : beaten ? "another one is better in all" : ""));
}

function line(column, rows) {
  const cells = rows.map((row) => number(row.text[column.key], { class: row.best.includes(column.key) ? "best" : "" }));
  return h("tr", {}, h("th", { scope: "row" }, column.title), cells);
}

function save(format, title) {
  const address = `${path}&format=${format}`;
  if (!key()) return h("a", { class: "button", href: address }, title);
  return h("button", { onclick: () => download(address, `comparison.${format}`) }, title);
}
