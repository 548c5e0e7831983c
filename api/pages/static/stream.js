// Server-sent events through fetch, since EventSource cannot send a key.

import { call } from "/static/api.js";

export async function follow(path, onEvent) {
  let last = "0";
  for (;;) {
    try {
      const response = await call(path, { headers: { Accept: "text/event-stream", "Last-Event-ID": last } });
      if (response.status === 204) return;
      for await (const event of events(response.body)) {
        last = event.id ?? last;
        onEvent(event);
      }
    } catch (error) {
      if (error.status) throw error;
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const event = parse(part);
      if (event.data) yield event;
    }
  }
}

function parse(part) {
  const event = {};
  for (const line of part.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).trim();
  }
  if (event.data) event.body = JSON.parse(event.data);
  return event;
}
