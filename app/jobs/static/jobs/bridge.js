"use strict";

const measure = document.getElementById("measure");
const state = document.getElementById("bridge-state");
const rows = document.getElementById("bridge-rows");

measure.disabled = false;
state.textContent = "";

async function run() {
  measure.disabled = true;
  state.textContent = "Measuring.";
  try {
    const { answer } = await askJson("data");
    rows.replaceChildren(
      ...Object.entries(answer.rows).map(([name, row]) => {
        const line = document.createElement("tr");
        const head = document.createElement("th");
        head.textContent = name;
        const cells = [`${row.microseconds} µs`, row.loops].map((text) => {
          const cell = document.createElement("td");
          cell.textContent = text;
          return cell;
        });
        line.append(head, ...cells);
        return line;
      }),
    );
    state.textContent =
      `${answer.calls} calls of each under ${answer.server}; the middleware's one call took ${answer.middleware} ms.`;
  } catch (error) {
    state.textContent = error.message;
  }
  measure.disabled = false;
}

measure.addEventListener("click", run);
run();
