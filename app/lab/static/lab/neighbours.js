"use strict";

const all = document.getElementById("all");
const allState = document.getElementById("all-state");
const sections = [...document.querySelectorAll(".experiment")];
const buttons = [all, ...sections.map((section) => section.querySelector("button"))];
const LONG = 0.1;
const PATIENCE = 45; // tries, one a second: another turn lasts 20 s at most, and its rest as long

const milliseconds = (seconds) => `${Math.round(seconds * 1000)} ms`;
const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

function summary({ sleepers, fast }) {
  const waits = fast.map((one) => one.answered - one.sent);
  const behind = fast.filter((one) => one.waited_for).length;
  const among = fast.reduce((most, one) => (one.asleep > most.asleep ? one : most));
  const asleep = among.asleep
    ? `${among.asleep} asleep in ${plural(among.asleep_in_threads, "thread")} of process ${among.process}, which had ${among.threads} in all. `
    : `Nobody was answered while ${sleepers.asked === 1 ? "the one" : "they"} slept. `;
  return `${asleep}${plural(fast.length, "fast request")}: ${behind} waited for a sleeper's end, ` +
    `quickest ${milliseconds(Math.min(...waits))}, slowest ${milliseconds(Math.max(...waits))}.`;
}

function rows({ sleepers, fast }) {
  const where = sleepers.first ? ` ${sleepers.first.process}/${sleepers.first.thread}` : "";
  const slow = {
    label: `${plural(sleepers.asked, "sleeper")}${sleepers.asked === 1 ? where : ""}`,
    began: sleepers.began,
    ended: sleepers.ended,
    kind: "slow",
  };
  return [slow, ...fast.map((one) => ({
    label: `${one.view} ${one.process}/${one.thread}, ${one.asleep} asleep`,
    began: one.sent,
    ended: one.answered,
    kind: one.answered - one.sent > LONG ? "late" : "fast",
  }))];
}

async function run(section) {
  const state = section.querySelector("output");
  state.textContent = "running";
  try {
    const { answer } = await askJson(section.dataset.url, PATIENCE);
    state.textContent = summary(answer);
    drawBars(section.querySelector("div"), rows(answer), state.textContent);
  } catch (error) {
    state.textContent = error.message;
  }
}

async function inTurn(wanted) {
  buttons.forEach((button) => { button.disabled = true; });
  for (const section of wanted) await run(section);
  buttons.forEach((button) => { button.disabled = false; });
}

allState.textContent = "";
buttons.forEach((button) => { button.disabled = false; });
all.addEventListener("click", () => inTurn(sections));
for (const section of sections) section.querySelector("button").addEventListener("click", () => inTurn([section]));
