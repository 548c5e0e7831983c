import { download, get, key, start } from "/static/api.js";
import { h, number } from "/static/dom.js";

const jobs = new URLSearchParams(location.search).getAll("job");
const path = `/v1/comparisons?${jobs.map((id) => `job=${encodeURIComponent(id)}`).join("&")}`;

start(async (page) => {
  if (!jobs.length) {
    page.replaceChildren(h("h1", {}, "Comparison"), h("p", { class: "lead" }, "Pick finished jobs on the ", h("a", { href: "/jobs" }, "list of jobs"), "."));
    return;
  }
  const found = await get(path);
  page.replaceChildren(
    h("h1", {}, "Comparison"),
    h("p", { class: "lead" }, `${jobs.length} job${jobs.length > 1 ? "s" : ""} beside ${originals(found)}. The best of each column stands out.`),
    found.warnings.length ? h("div", { class: "notice" }, found.warnings.map((text) => h("p", {}, text))) : null,
    comparisonTable(found),
    h("div", { class: "row" }, save("html", "Page with charts"), save("csv", "CSV"), save("json", "JSON")),
  );
});

function originals(found) {
  const count = found.rows.filter((row) => row.kind === "original").length;
  return count > 1 ? `${count} originals` : "the original";
}

function comparisonTable(found) {
  const columns = found.columns.filter((column) => found.rows.some((row) => row.values[column.key] !== null));
  const head = h("tr", {}, h("th", {}, ""), h("th", {}, "Verdict"), columns.map((column) => h("th", { class: "number" }, column.title)));
  return h("div", { class: "panel table" }, h("table", {}, h("thead", {}, head), h("tbody", {}, found.rows.map((row) => line(row, columns)))));
}

function line(row, columns) {
  const name = row.kind === "job" ? h("a", { href: `/jobs/${row.id}` }, row.name) : row.name;
  return h(
    "tr",
    { class: row.kind },
    h("td", {}, name, row.pareto && row.kind === "job" ? h("span", { class: "sub" }, "nothing here beats it") : null),
    h("td", { class: "wide" }, row.verdict),
    columns.map((column) => number(row.text[column.key], { class: row.best.includes(column.key) ? "best" : "" })),
  );
}

function save(format, title) {
  const address = `${path}&format=${format}`;
  if (!key()) return h("a", { class: "button", href: address }, title);
  return h("button", { onclick: () => download(address, `comparison.${format}`) }, title);
}
