"use strict";

// The site's choice of theme (core/site.js), in the way Swagger UI knows it.
let chosen = null;
try {
  chosen = localStorage.getItem("theme");
} catch { /* a browser that keeps nothing */ }
const dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
document.documentElement.classList.toggle("dark-mode", dark);
