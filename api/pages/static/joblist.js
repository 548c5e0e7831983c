// The table of jobs, on the first page and on the page of all.

import { h, moment, number, pill, row, table, times } from "/static/dom.js";

export function jobTable(jobs, onPick = null) {
  const heads = [onPick ? "" : null, "Job", "State", h("th", { class: "number" }, "Smaller"), h("th", { class: "number" }, "Faster"), "Verdict", "Submitted"];
  return table(heads.filter((head) => head !== null), jobs.map((job) => jobRow(job, onPick)));
}

function jobRow(job, onPick) {
  const box = () => h("input", { type: "checkbox", "aria-label": `compare ${job.name}`, disabled: job.state !== "succeeded", onchange: (event) => onPick(job, event.target.checked) });
  const cells = [
    h("td", { class: "wide" }, h("a", { href: `/jobs/${job.id}` }, job.name), h("span", { class: "sub" }, job.steps.map((step) => step.method).join(" → "))),
    pill(job.state),
    number(job.size_ratio ? times(job.size_ratio) : ""),
    number(job.speedup ? times(job.speedup) : ""),
    h("td", { class: "wide" }, job.verdict ?? job.error?.message ?? (job.state === "running" ? `${Math.round(job.percentage_done)}%  ${job.message}` : "")),
    moment(job.created_at),
  ];
  return row(...(onPick ? [box()] : []), ...cells);
}

