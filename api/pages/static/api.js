// Calls to the API with the key of this tab, and the form that asks for one.

const KEY = "modelpress-key";

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || `The service answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

export function key() {
  return sessionStorage.getItem(KEY);
}

export async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  const response = await fetch(path, { ...options, headers });
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
  return response;
}

export async function get(path) {
  return (await call(path)).json();
}

export async function post(path) {
  return (await call(path, { method: "POST" })).json();
}

// Downloads cannot carry a header from a link, so with a key the bytes come through this page.
export async function download(path, name) {
  const blob = await (await call(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Shows the page; where a key is needed, the form first.
export async function start(show) {
  const page = document.getElementById("page");
  try {
    await show(page);
  } catch (error) {
    if (error.status === 401) askForKey(page, error.body.detail, show);
    else page.replaceChildren(message(error.message));
  }
}

function askForKey(page, reason, show) {
  const form = document.createElement("form");
  form.className = "panel";
  const title = document.createElement("h2");
  title.textContent = "This service asks for an API key";
  const text = document.createElement("p");
  text.className = "soft";
  text.textContent = key() ? reason : "It is kept in this tab only, until the tab is closed.";
  const line = document.createElement("div");
  line.className = "row";
  const input = Object.assign(document.createElement("input"), { type: "password", placeholder: "mpk_…", required: true, autocomplete: "off" });
  input.setAttribute("aria-label", "API key");
  const button = Object.assign(document.createElement("button"), { className: "main", textContent: "Continue" });
  line.append(input, button);
  form.append(title, text, line);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value.trim());
    location.reload();
  });
  page.replaceChildren(form);
  input.focus();
}

function message(text) {
  const box = document.createElement("div");
  box.className = "problem";
  box.textContent = text;
  return box;
}
