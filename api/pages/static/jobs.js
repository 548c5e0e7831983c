import { get, start } from "/static/api.js";
import { fill, h } from "/static/dom.js";
import { jobTable } from "/static/joblist.js";

const STATES = ["queued", "running", "cancelling", "succeeded", "failed", "cancelled", "expired"];
const query = new URLSearchParams(location.search);
const picked = new Set();

start(async (page) => {
  const wanted = new URLSearchParams([...query].filter(([name]) => ["state", "label", "model_id", "cursor"].includes(name)));
  const found = await get(`/v1/jobs?${wanted}`);
  const button = h("button", { class: "main", disabled: true, onclick: compare }, "Compare");
  const pick = (job, on) => {
    if (on) picked.add(job.id);
    else picked.delete(job.id);
    button.disabled = picked.size === 0;
    button.textContent = picked.size ? `Compare ${picked.size}` : "Compare";
  };
  fill(
    page,
    h("h1", {}, "Jobs"),
    h("div", { class: "row between" }, stateFilter(), button),
    found.items.length ? await jobTable(found.items, pick) : h("p", { class: "panel soft" }, "No jobs here."),
    found.next_cursor && h("div", { class: "row" }, h("a", { class: "button", href: next(found.next_cursor) }, "Older jobs")),
  );
});

function stateFilter() {
  const options = ["", ...STATES].map((state) => h("option", { value: state, selected: query.get("state") === state }, state || "all states"));
  return h("select", { "aria-label": "state", onchange: (event) => (location.search = event.target.value ? `state=${event.target.value}` : "") }, options);
}

function next(cursor) {
  const following = new URLSearchParams(query);
  following.set("cursor", cursor);
  return `/jobs?${following}`;
}

function compare() {
  location.href = `/compare?${[...picked].map((id) => `job=${id}`).join("&")}`;
}
