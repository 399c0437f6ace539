"use strict";
// Tables sort by a click on a heading, numbers by value; a third click brings their own order back.
function value(cell) {
  const text = cell.textContent.trim().replace(/\u2212/g, "-");
  const number = /^[<(]?([+-]?\d*\.?\d+)/.exec(text);
  return { text, number: number ? Number(number[1]) : null, none: text === "" || text === "\u2014" };
}
function compare(a, b) {
  if (a.none !== b.none) return a.none ? 1 : -1;  // what does not exist comes last, whichever way
  if (a.number !== null && b.number !== null) return a.number - b.number || a.text.localeCompare(b.text);
  return a.text.localeCompare(b.text);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], own = [...body.rows], heads = [...table.tHead.rows].pop().cells;
  if (own.length < 2) continue;
  for (const [at, head] of [...heads].entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const order = next[head.getAttribute("aria-sort") || "none"];
      for (const other of heads) other.removeAttribute("aria-sort");
      const sign = order === "descending" ? -1 : 1;
      const keyed = own.map((row) => [value(row.cells[at]), row]);
      if (order !== "none") {
        head.setAttribute("aria-sort", order);
        keyed.sort(([a], [b]) => (a.none || b.none ? compare(a, b) : sign * compare(a, b)));
      }
      body.append(...keyed.map(([, row]) => row));
    });
  }
}
// Paper shows what is folded away.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const each of opened) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of opened) each.open = false;
});
// One clip at a time; a clip whose file was left behind says so.
for (const player of document.querySelectorAll("audio")) {
  player.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
  });
  player.addEventListener("error", () => {
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = "The clip is not beside this page: send its folder along, or make the report with --embed_audio.";
    player.replaceWith(note);
  });
}
