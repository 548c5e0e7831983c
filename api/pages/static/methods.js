import { get, start } from "/static/api.js";
import { fill, h, row, table } from "/static/dom.js";

// Every method takes these: the first is its name, the second picks layers.
const COMMON = ["method", "layers"];

start(async (page) => {
  const { items } = await get("/v1/methods");
  fill(
    page,
    h("h1", {}, "Methods"),
    h("p", { class: "lead" }, "What a step of a job can be. Steps run in the order they are posted in, each on what the one before it made."),
    items.map(panel),
  );
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
});

function panel(method) {
  return h(
    "section",
    { class: "panel", id: method.name },
    h("h2", {}, method.name),
    h("p", {}, method.title),
    h("div", { class: "tags" }, tags(method).map((text) => h("span", { class: "pill" }, text))),
    h("pre", {}, JSON.stringify(method.example)),
    h(
      "details",
      {},
      h("summary", {}, "More, with its fields"),
      method.description.split("\n\n").map((text) => h("p", { class: "small" }, text)),
      method.source && h("p", { class: "small soft" }, `Source: ${method.source}`),
      fields(method.parameters),
    ),
  );
}

function tags(method) {
  const needs = method.needs.map((role) => `needs ${role} data`);
  const uses = method.uses.map((role) => `uses ${role} data`);
  const changes = method.changes.map((what) => `changes ${what}`);
  return [...needs, ...uses, ...(method.needs_labels ? ["needs labels"] : []), ...changes];
}

function fields(schema) {
  const own = Object.entries(schema.properties).filter(([name]) => !COMMON.includes(name));
  if (!own.length) return h("p", { class: "small soft" }, "It has no fields of its own.");
  const rows = own.map(([name, facts]) => row(
    h("td", { class: "mono" }, name),
    h("td", { class: "small soft" }, kind(facts), h("span", { class: "sub" }, usual(facts))),
    h("td", { class: "wide small" }, facts.description ?? ""),
  ));
  return table(["Field", "Values", ""], rows, "steps");
}

function kind(facts) {
  const known = [facts, ...(facts.anyOf ?? [])].map(words).filter(Boolean);
  return known.join(" or ") || "object";
}

function words(option) {
  if (option.enum) return option.enum.join(", ");
  if (option.const !== undefined) return String(option.const);
  if (!option.type || option.type === "null") return option.type ?? "";
  const bounds = [[">", option.exclusiveMinimum], ["≥", option.minimum], ["<", option.exclusiveMaximum], ["≤", option.maximum]];
  return [option.type, ...bounds.filter(([, value]) => value !== undefined).map(([sign, value]) => `${sign} ${value}`)].join(" ");
}

function usual(facts) {
  return "default" in facts ? `default ${JSON.stringify(facts.default)}` : "required";
}
