"use strict";

const state = document.getElementById("cache-state");
const rows = document.getElementById("cache-rows");
const buttons = ["ask", "eight", "page", "new"].map((id) => document.getElementById(id));
const MOST = 24;
let name;
let pages = new Set();

function another() {
  name = Math.random().toString(36).slice(2, 10).padEnd(2, "0");
  pages = new Set();
  state.textContent = `A new value, ${name}: nobody has computed it yet.`;
}

function show({ answer, began, ended }, outcome) {
  const row = document.createElement("tr");
  const server = answer.began === undefined ? "" : `${Math.round((answer.ended - answer.began) * 1000)} ms`;
  const here = `${Math.round((ended - began) * 1000)} ms`;
  for (const text of [outcome, here, server, answer.process || "", answer.computed.process]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    row.append(cell);
  }
  rows.prepend(row);
  while (rows.rows.length > MOST) rows.lastElementChild.remove();
}

async function value() {
  const one = await askJson(`value?name=${name}`);
  show(one, one.answer.outcome);
}

async function page() {
  // What tells a kept answer from a new one is when it was computed.
  const one = await askJson(`page?for=${name}`);
  const key = `${one.answer.computed.process} ${one.answer.computed.began}`;
  show(one, pages.has(key) ? "page, kept" : "page, new");
  pages.add(key);
}

const actions = [value, () => Promise.all(Array.from({ length: 8 }, value)), page, another];

buttons.forEach((button, index) => {
  button.disabled = false;
  button.addEventListener("click", async () => {
    for (const each of buttons) each.disabled = true;
    try {
      state.textContent = "";
      await actions[index]();
    } catch (error) {
      state.textContent = error.message;
    }
    for (const each of buttons) each.disabled = false;
  });
});
another();
