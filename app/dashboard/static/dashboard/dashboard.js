"use strict";

const form = document.getElementById("dashboard-form");
const error = document.getElementById("dashboard-error");
const MODES = ["async", "sync"];

// Both are asked, so there is nothing to choose.
document.documentElement.classList.add("scripted");

let asked = null; // aborts what the last click asked: leaving is what cancels calls on the server

function seconds(value) {
  return `${value.toFixed(2)} s`;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function lane(bar, start, end, scale) {
  const made = element("span", "lane");
  made.setAttribute("aria-hidden", "true"); // the numbers beside it say the same
  bar.style.left = `${(100 * start) / scale}%`;
  bar.style.width = `${(100 * (end - start)) / scale}%`;
  made.append(bar);
  return made;
}

function table(calls, scale) {
  const made = element("table", "waterfall");
  const head = made.createTHead().insertRow();
  for (const [name, className] of [["service", ""], ["outcome", ""], ["from - to", "detail"], ["", "track"]]) {
    const cell = element("th", className, name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = made.createTBody();
  for (const call of calls) {
    const row = body.insertRow();
    const name = element("th", "", call.service);
    name.scope = "row";
    row.append(name);
    row.append(element("td", "", call.outcome));
    row.append(element("td", "detail", `${call.start.toFixed(2)} - ${seconds(call.end)}`));
    const track = element("td", "track");
    track.append(lane(element("span", `bar ${call.outcome}`), call.start, call.end, scale));
    row.append(track);
  }
  return made;
}

function draw(mode, calls, scale) {
  document.getElementById(`${mode}-calls`).replaceChildren(table(calls, scale));
}

function say(mode, text) {
  document.getElementById(`${mode}-total`).textContent = text;
}

function wait(mode, began, scale, signal) {
  const bar = element("span", "bar waiting");
  const target = document.getElementById(`${mode}-calls`);
  target.replaceChildren(lane(bar, 0, 0, 1));
  say(mode, "waiting");
  const step = () => {
    if (signal.aborted || !bar.isConnected) return;
    bar.style.width = `${Math.min(100, (performance.now() - began) / 10 / scale)}%`;
    requestAnimationFrame(step);
  };
  step();
}

async function fetchMode(mode, signal) {
  const query = new URLSearchParams(new FormData(form));
  query.set("mode", mode);
  const response = await fetch(`${form.action}?${query}`, { signal });
  const type = response.headers.get("Content-Type") || "";
  if (!type.includes("json")) throw new Error(`The server answered ${response.status}.`);
  const body = await response.json();
  if (body.errors) {
    throw new Error(Object.entries(body.errors).map(([name, texts]) => `${name}: ${texts.join(" ")}`).join(" "));
  }
  return body;
}

async function ask() {
  if (asked) asked.abort();
  asked = new AbortController();
  const signal = asked.signal;
  error.textContent = "";
  // Both waterfalls on one scale: the sum, which is what the slower one takes.
  const delays = form.elements.delay.value.split(",").map(Number);
  const count = Number(form.elements.count.value);
  const limit = Number(form.elements.timeout.value);
  const each = delays.length === 1 ? Array(Math.min(Math.max(count, 1), 10) || 1).fill(delays[0]) : delays;
  const expected = Math.max(0.1, each.reduce((sum, delay) => sum + Math.min(delay || 0, limit || 0), 0));
  const began = performance.now();
  const answers = {};
  await Promise.all(MODES.map(async (mode) => {
    wait(mode, began, expected, signal);
    try {
      answers[mode] = await fetchMode(mode, signal);
    } catch (failure) {
      if (signal.aborted) return;
      error.textContent = failure.message;
      document.getElementById(`${mode}-calls`).replaceChildren();
      say(mode, "no answer");
      return;
    }
    const scale = Math.max(expected, ...Object.values(answers).map((answer) => answer.elapsed));
    for (const [drawn, answer] of Object.entries(answers)) draw(drawn, answer.calls, scale);
    const { elapsed, calls, client, by } = answers[mode];
    const good = calls.filter((call) => call.outcome === "ok").length;
    const how = by ? `${client}, ${by}` : client;
    say(mode, `${seconds(elapsed)} for ${calls.length} calls, ${good} answered (${how})`);
  }));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});

for (const button of document.querySelectorAll(".example")) {
  button.addEventListener("click", () => {
    form.reset();
    for (const [name, value] of Object.entries(button.dataset)) form.elements[name].value = value;
    ask();
  });
}
