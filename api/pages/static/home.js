import { get, start } from "/static/api.js";
import { fill, h } from "/static/dom.js";
import { jobTable } from "/static/joblist.js";

const recent = document.getElementById("recent");

get("/healthz").then((health) => (document.getElementById("service").textContent = `Modelpress ${health.version} ·`));

start(async () => {
  const { items } = await get("/v1/jobs?limit=5");
  fill(recent, h("h2", {}, "Recent jobs"), items.length ? await jobTable(items) : empty());
});

function empty() {
  return h(
    "div",
    { class: "panel soft" },
    h("p", {}, "None yet. The shortest way to the first one:"),
    h("pre", {}, `curl -F file=@model.onnx ${location.origin}/v1/models\ncurl ${location.origin}/v1/jobs -H 'Content-Type: application/json' \\\n  -d '{"model_id": "mdl_...", "steps": [{"method": "quantize_weights"}]}'`),
  );
}
