// Elements and figures. Text goes in as text, so that no name from outside is ever read as markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Puts children into an element in place of what was there; what is null or false is left out.
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter(Boolean));
}

export function pill(state) {
  return h("span", { class: `pill ${state}` }, state);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  while (value >= 999.5 && index < units.length - 1) {
    value /= 1000;
    index += 1;
  }
  return `${index ? digits(value) : value} ${units[index]}`;
}

export function digits(value) {
  return Number(value).toLocaleString("en", { maximumSignificantDigits: 3 });
}

export function times(value) {
  if (value === null || value === undefined) return "–";
  return `${value < 9.95 ? value.toFixed(2) : digits(value)}×`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 90) return `${digits(value)} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${digits(value / 3600)} h`;
}

export function moment(text) {
  if (!text) return "";
  const date = new Date(text);
  return h("time", { datetime: text, title: text }, date.toLocaleString(undefined, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" }));
}

export function table(heads, rows, kind = "") {
  const cell = (tag) => (content) => (content instanceof HTMLTableCellElement ? content : h(tag, {}, content ?? ""));
  return h("div", { class: `panel table ${kind}` }, h("table", {}, h("thead", {}, h("tr", {}, heads.map(cell("th")))), h("tbody", {}, rows)));
}

export function row(...cells) {
  return h("tr", {}, cells.map((content) => (content instanceof HTMLTableCellElement ? content : h("td", {}, content ?? ""))));
}

export function number(content, attributes = {}) {
  return h("td", { ...attributes, class: `number ${attributes.class ?? ""}` }, content);
}
