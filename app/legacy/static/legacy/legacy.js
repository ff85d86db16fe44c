"use strict";

const form = document.getElementById("legacy-form");
const send = form.querySelector("button");
const state = document.getElementById("legacy-state");
const chart = document.getElementById("legacy-chart");

send.disabled = false;
state.textContent = "";

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  send.disabled = true;
  state.textContent = "Sending.";
  try {
    const { answer } = await askJson(`data?mode=${encodeURIComponent(form.elements.mode.value)}`);
    const calls = [...(answer.messages || []), answer.report];
    const seconds = (answer.ended - answer.began).toFixed(2);
    state.textContent = answer.error || `${calls.length} calls in ${answer.threads} ${answer.threads === 1 ? "thread" : "threads"} took ${seconds} s.`;
    const rows = calls.map((call) => ({
      label: `${call.number || "report"}: thread ${call.thread}`,
      began: call.began,
      ended: call.ended,
      kind: call.number ? "" : "slow",
    }));
    drawBars(chart, rows, state.textContent);
  } catch (error) {
    state.textContent = error.message;
  }
  send.disabled = false;
});
