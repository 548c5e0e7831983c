import { download, get, key, post, start } from "/static/api.js";
import { bytes, fill, h, moment, number, pill, row, seconds, table, times } from "/static/dom.js";
import { follow } from "/static/stream.js";

const id = location.pathname.split("/").pop();
const FINAL = ["succeeded", "failed", "cancelled", "expired"];
const TICK_MS = 1000;
const ALL_LAYERS = { include: ["*"], exclude: [] };
let model = "";
let defaults = new Map();
const log = h("ol", { class: "log" });
let drawing = false;

start(async (page) => {
  const { model_id } = await get(`/v1/jobs/${id}`);
  model = (await get(`/v1/models/${model_id}`).catch(() => null))?.name ?? "a deleted model";
  const { items } = await get("/v1/methods");
  defaults = new Map(items.map((method) => [method.name, method.parameters.properties]));
  await draw(page);
  const ticking = setInterval(() => tick(page), TICK_MS);
  await follow(`/v1/jobs/${id}/events`, (event) => {
    note(event.body);
    refresh(page);
  });
  clearInterval(ticking);
  await draw(page);
});

// Events may come faster than the page is fetched: one fetch at a time, and one more after the last event.
let again = false;
async function refresh(page) {
  if (drawing) {
    again = true;
    return;
  }
  drawing = true;
  do {
    again = false;
    await draw(page).catch(() => {});
  } while (again);
  drawing = false;
}

// Events tell of whole percents only, which in a long training are minutes apart: the line of progress is asked for.
async function tick(page) {
  const panel = page.querySelector(".running-panel");
  if (document.hidden || drawing || !panel) return;
  const job = await get(`/v1/jobs/${id}`).catch(() => null);
  if (!job || drawing || FINAL.includes(job.state)) return;
  panel.querySelector("progress").value = job.percentage_done;
  fill(panel.querySelector(".progress-line"), progressLine(job));
}

async function draw(page) {
  const job = await get(`/v1/jobs/${id}`);
  const files = FINAL.includes(job.state) ? (await get(`/v1/jobs/${id}/artifacts`)).items : [];
  const open = [...page.querySelectorAll("details[open]")].map((element) => element.id);
  document.title = `${job.name} · Modelpress`;
  fill(page, [
    heading(job),
    job.verdict && h("p", { class: "verdict" }, job.verdict),
    failure(job),
    FINAL.includes(job.state) ? null : progressPanel(job),
    job.measurements && figures(job.measurements),
    job.measurements?.notes.length ? h("div", { class: "notice" }, job.measurements.notes.map((text) => h("p", {}, text))) : null,
    h("h2", {}, "Steps"),
    steps(job),
    files.length ? h("h2", {}, "Files") : null,
    files.length ? fileTable(files) : null,
    details("log", "What happened", log),
    details("request", "The request with its defaults", h("pre", {}, request(job))),
  ]);
  for (const name of open) page.querySelector(`#${name}`).open = true;
}

function heading(job) {
  const labels = Object.entries(job.labels).map(([name, value]) => h("a", { class: "pill", href: `/jobs?label=${encodeURIComponent(`${name}:${value}`)}` }, `${name}: ${value}`));
  return h(
    "div",
    {},
    h("div", { class: "title" }, h("h1", {}, job.name), pill(job.state)),
    h("p", { class: "soft small" }, h("strong", {}, model), " · ", h("span", { class: "mono" }, job.id), " · submitted ", moment(job.created_at), ` · ${job.device}`, job.attempt > 1 ? ` · attempt ${job.attempt}` : ""),
    labels.length ? h("div", { class: "tags" }, labels) : null,
    actions(job),
  );
}

function actions(job) {
  const act = (path) => async () => {
    const changed = await post(path).catch(() => null);
    if (changed && changed.id !== job.id) location.href = `/jobs/${changed.id}`;
    else location.reload();
  };
  const buttons = [
    job.links.cancel && h("button", { onclick: act(job.links.cancel) }, "Cancel"),
    job.links.retry && h("button", { class: "main", onclick: act(job.links.retry) }, "Try again"),
    job.state === "succeeded" && h("a", { class: "button", href: `/compare?job=${job.id}` }, "Compare with the original"),
  ].filter(Boolean);
  return buttons.length ? h("div", { class: "row" }, buttons) : null;
}

function failure(job) {
  if (!job.error) return null;
  return h("div", { class: "problem" }, h("strong", {}, job.error.message), job.error.hint ? h("p", {}, job.error.hint) : null, h("p", { class: "small soft" }, [job.error.code, job.error.where].filter(Boolean).join(" · ")));
}

function progressPanel(job) {
  return h(
    "div",
    { class: "panel running-panel" },
    h("progress", { max: "100", value: String(job.percentage_done), "aria-label": "progress" }),
    h("div", { class: "progress-line" }, progressLine(job)),
  );
}

function progressLine(job) {
  const waiting = job.waiting_for ? `waiting for ${job.waiting_for}` : job.message || job.state;
  const left = job.eta_s === null ? "" : `about ${seconds(job.eta_s)} left`;
  return [h("span", {}, waiting), h("span", {}, [`${Math.floor(job.percentage_done)}%`, left].filter(Boolean).join(" · "))];
}

function figures(found) {
  const { original, compressed } = found;
  const cards = [
    card("Size", bytes(compressed.size_bytes), `from ${bytes(original.size_bytes)} · ${times(found.size_ratio)} smaller`),
    found.speedup && card("Latency", `${compressed.latency_ms.p50_ms.toPrecision(3)} ms`, `${times(found.speedup.value)} as fast as the original (${times(found.speedup.low)} to ${times(found.speedup.high)})`),
    fidelity(found),
    card("Zeros among the weights", `${(100 * compressed.sparsity).toFixed(1)}%`, `${(100 * original.sparsity).toFixed(1)}% before`),
    ...Object.entries(compressed.metrics).slice(0, 3).map(([name, metric]) => card(name, metric.value.toPrecision(3), `${original.metrics[name].value.toPrecision(3)} before`)),
  ];
  return h("div", { class: "cards" }, cards.filter(Boolean));
}

// The output that came out worst: null where none could be compared, or all are equal.
function fidelity(found) {
  const outputs = Object.entries(found.fidelity).filter(([, output]) => output.sqnr_db !== null);
  if (!outputs.length) return null;
  const [name, worst] = outputs.reduce((left, right) => (right[1].sqnr_db < left[1].sqnr_db ? right : left));
  const data = found.data === "synthetic" ? "synthetic inputs" : `the ${found.data} data`;
  return card("Output fidelity (SQNR)", `${worst.sqnr_db.toFixed(1)} dB`, outputs.length > 1 ? `${name}, the worst of ${outputs.length}, on ${data}` : `on ${data}`);
}

function card(title, value, sub) {
  return h("div", { class: "card" }, h("h3", {}, title), h("div", { class: "value" }, value), h("div", { class: "sub" }, sub));
}

function steps(job) {
  const rows = job.steps.map((step) => row(
    h("td", { class: "wide" }, step.method, h("span", { class: "sub" }, settings(step))),
    h("td", {}, pill(step.state), step.cached ? h("span", { class: "sub" }, "from an earlier run") : null),
    number(step.changed ?? "", { title: "layers changed" }),
    number(step.size_bytes === null ? "" : bytes(step.size_bytes)),
    number(seconds(step.seconds)),
    h("td", { class: "wide small soft" }, step.notes.map((text) => h("p", {}, text))),
  ));
  const right = (text) => h("th", { class: "number" }, text);
  return table(["Step", "State", right("Layers changed"), right("Size after"), right("Time"), "Notes"], rows, "steps");
}

// What was chosen: the request below has the defaults too.
function settings(step) {
  const known = defaults.get(step.method) ?? {};
  const usual = (name) => (name === "layers" ? ALL_LAYERS : known[name]?.default ?? null);
  const chosen = Object.entries(step.parameters).filter(([name, value]) => name !== "method" && JSON.stringify(value) !== JSON.stringify(usual(name)));
  return chosen.map(([name, value]) => `${name} ${said(value)}`).join(", ");
}

function said(value) {
  if (Array.isArray(value)) return value.map(said).join(" ");
  if (typeof value !== "object" || value === null) return String(value);
  return Object.entries(value).filter(([, part]) => part !== null).map(([name, part]) => `${name} ${said(part)}`).join(" ");
}

function fileTable(files) {
  return table(["File", h("th", { class: "number" }, "Size"), "SHA-256"], files.map((file) => row(fileLink(file), number(bytes(file.size_bytes)), h("span", { class: "mono soft" }, file.sha256))), "files");
}

function fileLink(file) {
  if (!key()) return h("a", { href: file.links.content }, file.name);
  return h("a", { href: "#", onclick: (event) => { event.preventDefault(); download(file.links.content, file.name); } }, file.name);
}

function details(name, title, content) {
  return h("details", { class: "panel", id: name }, h("summary", {}, title), content);
}

function note(event) {
  const { type, data } = event;
  const words = { state: () => [data.state, data.reason, data.error?.message], step: () => [data.method, data.state, seconds(data.seconds)], progress: () => [data.message], note: () => [data.message] };
  const text = (words[type] ?? (() => [type]))().filter(Boolean).join(" · ");
  log.append(h("li", {}, h("time", {}, new Date(event.at).toLocaleTimeString()), h("span", {}, text)));
}

function request(job) {
  const steps = job.steps.map((step) => step.parameters);
  const { model_id, data, evaluation, device, seed, time_limit_s } = job;
  return JSON.stringify({ model_id, data, steps, evaluation, device, seed, time_limit_s }, null, 2);
}
