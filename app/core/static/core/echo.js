"use strict";

const state = document.getElementById("echo-state");
const text = document.getElementById("echo-text");
const button = document.getElementById("echo-send");
const log = document.getElementById("echo-log");

let socket;
let wait = 500;

function show(name) {
  state.textContent = name;
  text.disabled = button.disabled = name !== "open";
}

function connect() {
  show("connecting");
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/echo/`);
  socket.addEventListener("open", () => {
    wait = 500;
    show("open");
  });
  socket.addEventListener("message", (event) => {
    const line = document.createElement("li");
    line.textContent = event.data;
    log.prepend(line);
    if (log.children.length > 5) log.lastElementChild.remove();
  });
  socket.addEventListener("close", (event) => {
    show(`closed (${event.code})`);
    // Jitter: a restart closes many pages' sockets, and they must not all come back at once.
    setTimeout(connect, wait * (0.5 + Math.random()));
    wait = Math.min(wait * 2, 30000);
  });
}

document.getElementById("echo-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (text.value) socket.send(text.value);
});
connect();
