// The table of jobs, on the first page and on the page of all.

import { get } from "/static/api.js";
import { h, moment, number, pill, row, table, times } from "/static/dom.js";

export async function jobTable(jobs, onPick = null) {
  const models = await modelNames();
  const heads = [onPick ? "" : null, "Job", "State", h("th", { class: "number" }, "Smaller"), h("th", { class: "number" }, "Faster"), "Verdict", "Submitted"];
  return table(heads.filter((head) => head !== null), jobs.map((job) => jobRow(job, models.get(job.model_id) ?? job.model_id, onPick)), "jobs");
}

// By id, of the newest models: jobs hold ids only, and people know their models by name.
async function modelNames() {
  const names = new Map();
  for (let pages = 0, next = ""; pages < 5 && next !== null; pages += 1) {
    const found = await get(`/v1/models?limit=200${next}`);
    for (const model of found.items) names.set(model.id, model.name);
    next = found.next_cursor ? `&cursor=${found.next_cursor}` : null;
  }
  return names;
}

function jobRow(job, model, onPick) {
  const box = () => h("input", { type: "checkbox", "aria-label": `compare ${job.name}`, disabled: job.state !== "succeeded", onchange: (event) => onPick(job, event.target.checked) });
  const cells = [
    h("td", { class: "wide" }, h("a", { href: `/jobs/${job.id}` }, job.name), h("span", { class: "sub" }, model)),
    pill(job.state),
    number(job.size_ratio ? times(job.size_ratio) : "", { title: "smaller" }),
    number(job.speedup ? times(job.speedup) : "", { title: "faster" }),
    h("td", { class: "wide" }, job.verdict ?? job.error?.message ?? (job.state === "running" ? `${Math.round(job.percentage_done)}%  ${job.message}` : "")),
    moment(job.created_at),
  ];
  return row(...(onPick ? [box()] : []), ...cells);
}
