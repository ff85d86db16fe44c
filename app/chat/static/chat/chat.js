"use strict";

const chat = document.getElementById("chat");
const [state, why, processName, people, log, unsent, form, text] = [
  "state", "why", "process", "people", "log", "unsent", "form", "text",
].map((name) => document.getElementById(`chat-${name}`));

// Close codes: 4xxx are the consumer's (app/chat/consumers.py), 1012 is a process that restarts.
const RESTART = 1012;
const FINAL = {
  4400: "this page is out of date, load it again",
  4401: "you are logged out",
  4404: "there is no such room any more",
};
const SILENCE = 60000; // the server says something every 20 s; a browser does not notice a host that vanished
const SHOWN = 500;

const kept = `chat-unsent:${chat.dataset.user}:${chat.dataset.room}`;
let pending = JSON.parse(sessionStorage.getItem(kept) || "[]"); // [{key, text}], the oldest first
let last = null; // the id of the last message that was shown
let socket = null;
let ready = false; // welcomed
let waiting = null; // the key that was sent and not confirmed yet
let failures = 0;
let comeBack = null;
let silence = null;
let again = null;

function show(name, reason = "") {
  state.textContent = name;
  why.textContent = reason;
}

function line(className, name, words, at) {
  const item = document.createElement("li");
  item.className = className;
  if (name) item.append(Object.assign(document.createElement("b"), { textContent: name }));
  item.append(words);
  if (at) {
    const time = document.createElement("time");
    time.dateTime = at;
    time.title = new Date(at).toLocaleString();
    time.textContent = new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    item.append(time);
  }
  return item;
}

function add(item) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(item);
  while (log.children.length > SHOWN) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function keep() {
  sessionStorage.setItem(kept, JSON.stringify(pending));
  unsent.replaceChildren(...pending.map((message) => line("", "", message.text)));
}

// One at a time: so they are stored in the order in which they were written, also over a reconnect.
function pump() {
  clearTimeout(again);
  if (!ready || waiting || !pending.length) return;
  waiting = pending[0].key;
  socket.send(JSON.stringify({ type: "message", ...pending[0] }));
}

function drop(key) {
  pending = pending.filter((message) => message.key !== key);
  if (waiting === key) waiting = null;
  keep();
}

const handlers = {
  welcome(frame) {
    if (frame.reset) {
      log.replaceChildren();
      last = null;
    }
    if (frame.skipped) add(line("note", "", `${frame.skipped} messages are left out here`));
    processName.textContent = [frame.process, frame.instance].filter(Boolean).join(", ");
    failures = 0;
    ready = true;
    show("connected");
    pump();
  },
  messages(frame) {
    for (const message of frame.messages) {
      if (last !== null && message.id <= last) continue;
      last = message.id;
      const mine = message.author === chat.dataset.user;
      const item = line(mine ? "mine" : "", message.name, message.text, message.at);
      item.dataset.id = message.id;
      add(item);
      if (mine) drop(message.key);
    }
    pump();
  },
  stored(frame) {
    drop(frame.key);
    pump();
  },
  people(frame) {
    const names = frame.people.map((person) => person.name);
    if (frame.count > names.length) names.push(`${frame.count - names.length} more`);
    people.textContent = names.join(", ") || "-";
  },
  error(frame) {
    if (frame.retry) {
      waiting = null;
      again = setTimeout(pump, frame.retry * 1000);
    } else {
      add(line("note", "", `not sent: ${frame.error}`));
      drop(frame.key || waiting);
      pump();
    }
  },
};

function listen() {
  clearTimeout(silence);
  silence = setTimeout(() => socket.close(), SILENCE);
}

function connect() {
  clearTimeout(comeBack);
  comeBack = null;
  show("connecting");
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const since = last === null ? "" : `?since=${last}`;
  socket = new WebSocket(`${scheme}://${location.host}/ws/chat/${encodeURIComponent(chat.dataset.room)}/${since}`);
  listen();
  socket.addEventListener("message", (event) => {
    listen();
    const frame = JSON.parse(event.data);
    handlers[frame.type]?.(frame);
  });
  socket.addEventListener("close", closed);
}

function closed(event) {
  clearTimeout(silence);
  clearTimeout(again);
  ready = false;
  waiting = null; // whatever became of it: sent again under the same key, it is stored once
  if (FINAL[event.code]) {
    show("closed", FINAL[event.code]);
    if (event.code === 4401) {
      const link = document.createElement("a");
      link.href = chat.dataset.login;
      link.textContent = "log in";
      why.append(": ", link);
    }
    return;
  }
  if (event.code === 4009) pending.shift(); // our own limit is lower, so this is not to be
  keep();
  // 1012: another process is there already, or this one is back in a moment. Else longer each time. Always with
  // jitter: a restart closes the sockets of many pages, which must not all come back in the same instant.
  const pause = event.code === RESTART ? 1000 : Math.min(30000, 500 * 2 ** failures);
  failures += 1;
  const wait = pause * (0.5 + Math.random());
  show("reconnecting", `${event.code === RESTART ? "the server restarts" : `closed with ${event.code}`}, in ${Math.ceil(wait / 1000)} s`);
  comeBack = setTimeout(connect, wait);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!text.value.trim()) return;
  // not crypto.randomUUID, which is there on https and localhost alone
  const hex = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const key = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  pending.push({ key, text: text.value });
  text.value = "";
  keep();
  pump();
});

window.addEventListener("online", () => {
  if (comeBack) connect();
});

for (const part of form.elements) part.disabled = false;
keep();
connect();
