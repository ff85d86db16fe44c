"use strict";

// An EventSource comes back by itself after a lost connection, with the id of the last event it saw. Only a
// refusal closes it for good.
function watch(item) {
  const source = new EventSource(item.dataset.events);
  source.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    show(item, job);
    if (job.finished) source.close();
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(() => again(item), 5000);
  });
}

// Too many streams just now, or a deploy, are worth another try; a job that is no longer there, or no longer
// ours, is not.
async function again(item) {
  const answer = await fetch(item.querySelector(".result").href, { cache: "no-store" }).catch(() => null);
  if (answer?.status !== 404) return watch(item);
  item.querySelector(".says").textContent = "no longer there";
  item.querySelector("form")?.remove();
}

function show(item, job) {
  if (job.version < Number(item.dataset.version)) return;
  item.dataset.version = job.version;
  item.querySelector("progress").value = job.progress;
  item.querySelector(".says").textContent = job.cancelling ? "being cancelled" : job.says;
  item.querySelector(".attempts").textContent = job.attempts > 1 ? `, attempt ${job.attempts}` : "";
  item.querySelector(".note").textContent = job.note;
  if (job.finished) item.querySelector("form")?.remove();
}

for (const item of document.querySelectorAll("[data-events]")) watch(item);
