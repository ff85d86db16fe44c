"use strict";

// Not deferred: the theme has to stand before anything is drawn. The key and its values are those of Django's
// admin, so that one choice is good for both.
const THEMES = ["auto", "light", "dark"];

function theme() {
  let kept = null;
  try {
    kept = localStorage.getItem("theme");
  } catch { /* a browser that keeps nothing */ }
  return THEMES.includes(kept) ? kept : "auto";
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("theme", name);
  } catch { /* good for this page, then */ }
}

document.documentElement.dataset.theme = theme();
document.documentElement.classList.add("scripted");

function offerThemes(button) {
  const name = () => { button.lastElementChild.textContent = document.documentElement.dataset.theme; };
  button.addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
    name();
  });
  name();
  button.hidden = false;
}

function offerMenu(button, navigation) {
  const open = (yes) => {
    button.setAttribute("aria-expanded", yes);
    navigation.classList.toggle("open", yes);
  };
  button.addEventListener("click", () => open(button.getAttribute("aria-expanded") !== "true"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && navigation.classList.contains("open")) {
      open(false);
      button.focus();
    }
  });
  button.hidden = false;
}

async function nameAccount(link) {
  const response = await fetch("/account/name", { cache: "no-store" });
  if (!response.ok) return; // the link is good without a name
  const { name } = await response.json();
  link.textContent = name || "Log in";
}

document.addEventListener("DOMContentLoaded", () => {
  offerThemes(document.getElementById("theme"));
  offerMenu(document.getElementById("menu"), document.getElementById("navigation"));
  nameAccount(document.getElementById("account")).catch(() => {});
});
