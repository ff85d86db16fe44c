"use strict";

// Intervals under each other on one axis of time. Attributes of SVG, because the site allows no inline style.
// rows: [{label, began, ended, kind}], in seconds; kind is a class of site.css.
function drawBars(box, rows, title) {
  const space = "http://www.w3.org/2000/svg";
  const make = (name, attributes, text) => {
    const element = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const left = Math.min(...rows.map((row) => row.began));
  const right = Math.max(...rows.map((row) => row.ended), left + 0.001);
  const width = Math.max(box.clientWidth, 240);
  const line = 22;
  const svg = make("svg", { class: "bars", role: "img", "aria-label": title, width, height: rows.length * line });
  box.replaceChildren(svg);
  rows.forEach((row, index) => {
    const x = ((row.began - left) / (right - left)) * width;
    const size = Math.max(((row.ended - row.began) / (right - left)) * width, 2);
    svg.append(make("rect", { x, y: index * line + 14, width: size, height: 6, rx: 2, class: row.kind || "" }));
    const milliseconds = Math.round((row.ended - row.began) * 1000);
    const text = make("text", { y: index * line + 11 }, `${row.label}, ${milliseconds} ms`);
    svg.append(text);
    // Above its bar, but inside the picture.
    text.setAttribute("x", Math.max(0, Math.min(x, width - text.getComputedTextLength())));
  });
}

async function askJson(url, patience = 0) {
  const began = performance.now() / 1000;
  const response = await fetch(url, { cache: "no-store" });
  const type = response.headers.get("Content-Type") || "";
  const answer = type.startsWith("application/json") ? await response.json() : {};
  if (response.status === 429 && patience) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return askJson(url, patience - 1);
  }
  if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
  return { answer, began, ended: performance.now() / 1000 };
}
