"use strict";

const form = document.getElementById("slow-form");
const start = form.querySelector("button");
const state = document.getElementById("slow-state");
const chart = document.getElementById("slow-chart");
const LATE = 0.25;
const MOST = 40;

start.disabled = false;
state.textContent = "";

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  start.disabled = true;
  state.textContent = "The slow request is on its way.";
  let running = true;
  const fast = [];
  const slow = askJson(form.elements.path.value).finally(() => { running = false; });
  slow.catch(() => {}); // told below
  try {
    const asked = [];
    while (running && asked.length < MOST) {
      // Not one after the other: those that meet another process must not queue behind one that waits.
      asked.push(askJson("async/").then((one) => fast.push(one)));
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
    const done = await slow;
    await Promise.all(asked);
    fast.sort((one, other) => one.began - other.began);
    const rows = [done, ...fast].map((one, index) => ({
      label: `${index ? "fast" : "slow"}: process ${one.answer.process}, thread ${one.answer.thread}`,
      began: one.began,
      ended: one.ended,
      kind: index ? (one.ended - one.began > LATE ? "late" : "fast") : "slow",
    }));
    const late = rows.filter((row) => row.kind === "late").length;
    state.textContent = `${fast.length} fast requests were answered meanwhile, ${late} of them late.`;
    drawBars(chart, rows, state.textContent);
  } catch (error) {
    state.textContent = error.message;
  }
  start.disabled = false;
});

const run = document.getElementById("kinds-run");
const runState = document.getElementById("kinds-state");
run.disabled = false;
run.addEventListener("click", async () => {
  run.disabled = true;
  for (const row of document.getElementById("kinds-rows").rows) {
    runState.textContent = row.cells[0].textContent;
    try {
      const { answer } = await askJson(row.dataset.url, 5); // what harms rests afterwards
      const wait = `${Math.round(answer.neighbour.longest_wait * 1000)} ms`;
      [answer.process, answer.thread, answer.neighbour.turns, wait].forEach((text, index) => {
        row.cells[index + 1].textContent = text;
      });
    } catch (error) {
      row.cells[1].textContent = error.message;
    }
  }
  runState.textContent = "done";
  run.disabled = false;
});
