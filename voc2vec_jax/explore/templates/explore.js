"use strict";
const marks = document.querySelector(".map svg"), chosen = document.getElementById("chosen");
document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
}, true);
if (marks) marks.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link) return;
  const row = document.getElementById(link.getAttribute("href").slice(1)), sound = row.querySelector("audio");
  for (const other of marks.querySelectorAll("a.on")) other.classList.remove("on");
  link.classList.add("on");
  const name = document.createElement("a");
  name.href = link.getAttribute("href");
  name.textContent = row.querySelector(".name").textContent.trim();
  chosen.replaceChildren(name, " ", row.querySelector(".note").textContent.trim());
  if (!sound) return;
  event.preventDefault();
  const player = document.createElement("audio");
  player.controls = true;
  player.src = sound.src;
  chosen.append(player);
  player.play().catch(() => {});
});
for (const button of document.querySelectorAll(".legend button")) button.addEventListener("click", () => {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", shown);
  marks.querySelector(`g[data-class="${button.dataset.class}"]`).classList.toggle("off", !shown);
});
addEventListener("hashchange", () => {
  const row = document.getElementById(location.hash.slice(1)), folded = row && row.closest("details");
  if (folded) { folded.open = true; row.scrollIntoView({ block: "center" }); }
});
addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });
