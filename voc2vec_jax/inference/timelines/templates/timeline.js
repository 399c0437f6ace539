"use strict";
(() => {
const $ = (id) => document.getElementById(id);
if (!$("live")) return;
const data = JSON.parse($("data").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const at = new Float32Array(bytes(data.at).buffer), values = bytes(data.values);
const classes = data.classes.length, windows = at.length - 1, total = data.seconds;
const player = $("player"), spectrum = $("spectrum"), overview = $("overview"), detail = $("detail");
const lanes = data.classes.map((_, k) => k).filter((k) => data.events.some((event) => event[2] === k));
const peak = data.classes.map((_, k) => { let best = 0; for (let w = 0; w < windows; w++)
  best = Math.max(best, values[w * classes + k]); return best; });
const first = [...peak.keys()].sort((a, b) => peak[b] - peak[a]).slice(0, 8);
const shown = new Set([...lanes, ...first].slice(0, Math.max(8, lanes.length)));
let span = Math.min(total, Math.max(60, total / 30)), from = 0, clock0 = 0, stopAt = null, tried = 0;
document.body.classList.add("live");
$("live").hidden = false;

const clock = (s) => { const tenths = Math.round(s * 10), whole = Math.floor(tenths / 10);
  const two = (n) => String(n).padStart(2, "0"), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
  return (h ? h + ":" + two(m) : m) + ":" + two(whole % 60) + "." + tenths % 10; };
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
const playing = () => player.readyState > 0 ? player.currentTime : clock0;

function go(seconds) {
  clock0 = Math.max(0, Math.min(total, seconds));
  stopAt = null;
  if (player.readyState > 0) player.currentTime = clock0;
  draw();
}

function sheet(canvas) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = +canvas.getAttribute("data-height");
  canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, sans-serif";
  return [pen, width, height];
}

function drawOverview(now) {
  const [pen, width, height] = sheet(overview), x = (s) => s / total * width;
  if (spectrum.naturalWidth) pen.drawImage(spectrum, 0, 0, width, height - 12);
  for (const [start, end, k] of data.events) {
    pen.fillStyle = data.classes[k][1];
    pen.fillRect(x(start), height - 11, Math.max(1.5, x(end) - x(start)), 10);
  }
  pen.fillStyle = "rgba(255,255,255,.25)"; pen.strokeStyle = colour("--accent"); pen.lineWidth = 2;
  pen.fillRect(x(from), 0, Math.max(2, x(span)), height - 12);
  pen.strokeRect(x(from) + 1, 1, Math.max(2, x(span) - 2), height - 2);
  line(pen, x(now), 0, height);
}

function line(pen, x, top, bottom) {
  pen.strokeStyle = "#ff5a36"; pen.lineWidth = 2; pen.beginPath(); pen.moveTo(x, top); pen.lineTo(x, bottom); pen.stroke();
}

function ticks(pen, width, y) {
  const step = [.1, .2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400].find(
    (each) => each / span * width > 70) || 28800;
  pen.fillStyle = colour("--soft"); pen.textAlign = "center";
  for (let s = Math.ceil(from / step) * step; s <= from + span; s += step) {
    const x = (s - from) / span * width;
    if (x > 24 && x < width - 24) pen.fillText(step < 1 ? clock(s) : clock(s).slice(0, -2), x, y);
  }
}

function curves(pen, width, top, height) {
  const y = (value) => top + height - value / 255 * height;
  let begin = 0, end = windows;
  while (begin < end) { const middle = (begin + end) >> 1; if (at[middle + 1] < from) begin = middle + 1; else end = middle; }
  for (const k of shown) {
    pen.strokeStyle = data.classes[k][1]; pen.lineWidth = 1.6; pen.beginPath();
    for (let w = begin; w < windows && at[w] <= from + span; w++) {
      const height = y(values[w * classes + k]);
      pen.lineTo((at[w] - from) / span * width, height); pen.lineTo((at[w + 1] - from) / span * width, height);
    }
    pen.stroke();
  }
  if (data.threshold !== null) {
    pen.strokeStyle = colour("--soft"); pen.lineWidth = 1; pen.setLineDash([5, 4]); pen.beginPath();
    pen.moveTo(0, y(255 * data.threshold)); pen.lineTo(width, y(255 * data.threshold)); pen.stroke(); pen.setLineDash([]);
  }
  pen.fillStyle = colour("--soft"); pen.textAlign = "left";
  pen.fillText(String(+data.high.toPrecision(3)), 3, top + 11); pen.fillText(String(+data.low.toPrecision(3)), 3, top + height - 3);
}

function drawDetail(now) {
  const [pen, width, height] = sheet(detail), x = (s) => (s - from) / span * width;
  const sound = 170, middle = sound + 8, chart = 110, lanesTop = middle + chart + 8;
  if (spectrum.naturalWidth) {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(spectrum, from / total * spectrum.naturalWidth, 0, span / total * spectrum.naturalWidth,
      spectrum.naturalHeight, 0, 0, width, sound);
  }
  pen.fillStyle = "#fff"; pen.textAlign = "left";
  for (const k of [2, 4, 6]) pen.fillText(k + " kHz", 3, sound - k / 8 * sound + 4);
  curves(pen, width, middle, chart);
  for (const [start, end, k] of data.events) {
    if (end < from || start > from + span) continue;
    const lane = lanesTop + 18 * lanes.indexOf(k), left = Math.max(0, x(start)), right = Math.min(width, x(end));
    pen.fillStyle = data.classes[k][1];
    pen.fillRect(left, lane, Math.max(2, right - left), 15);
    if (right - left > 30) { pen.fillStyle = "#fff"; pen.save(); pen.beginPath(); pen.rect(left, lane, right - left, 15);
      pen.clip(); pen.fillText(data.classes[k][0], left + 4, lane + 11.5); pen.restore(); }
  }
  ticks(pen, width, height - 5);
  line(pen, x(now), 0, height - 18);
}

function draw() {
  const now = Math.min(playing(), total);
  if (!player.paused && stopAt !== null && now >= stopAt) { player.pause(); stopAt = null; }
  if (now < from || now > from + .85 * span) from = now - .15 * span;
  from = Math.max(0, Math.min(from, total - span));
  drawOverview(now); drawDetail(now);
  $("now").textContent = clock(now) + " of " + clock(total);
  $("span").textContent = clock(span) + " seen";
  document.querySelectorAll("button.go").forEach((button) => { const [start, end] = data.events[+button.dataset.event];
    button.closest("tr").classList.toggle("now", now >= start && now < end); });
}

function follow() { draw(); if (!player.paused && !player.ended) requestAnimationFrame(follow); }

function zoom(factor, anchor) {
  const before = span;
  span = Math.max(Math.min(total, 1), Math.min(total, span * factor));
  from = Math.max(0, Math.min(anchor - (anchor - from) * span / before, total - span));
  draw();
}

function pressed(canvas, place) {
  let held = false;
  const move = (event) => go(place((event.clientX - canvas.getBoundingClientRect().left) / canvas.clientWidth));
  canvas.addEventListener("pointerdown", (event) => { held = true; canvas.setPointerCapture(event.pointerId); move(event); });
  canvas.addEventListener("pointermove", (event) => { if (held) move(event); });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = false; });
}

function legend() {
  data.classes.forEach(([name, paint], k) => {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = name; button.setAttribute("aria-pressed", shown.has(k));
    button.style.borderLeft = "10px solid " + paint;
    button.addEventListener("click", () => { shown.has(k) ? shown.delete(k) : shown.add(k);
      button.setAttribute("aria-pressed", shown.has(k)); draw(); });
    $("legend").append(button);
  });
}

overview.setAttribute("data-height", 56);
detail.setAttribute("data-height", 318 + 18 * lanes.length);
pressed(overview, (share) => share * total);
pressed(detail, (share) => from + share * span);
detail.addEventListener("wheel", (event) => { event.preventDefault();
  zoom(event.deltaY > 0 ? 1.25 : .8, from + (event.offsetX / detail.clientWidth) * span); }, { passive: false });
$("closer").addEventListener("click", () => zoom(.5, playing()));
$("wider").addEventListener("click", () => zoom(2, playing()));
$("whole").addEventListener("click", () => zoom(1e9, 0));
for (const name of ["play", "seeked", "pause", "loadedmetadata", "timeupdate"])
  player.addEventListener(name, () => { if (name === "play") follow(); else draw(); });
for (const canvas of [overview, detail]) canvas.addEventListener("keydown", (event) => {
  if (event.key === " ") player.paused ? player.play() : player.pause();
  else if (event.key === "ArrowLeft") go(playing() - 5); else if (event.key === "ArrowRight") go(playing() + 5);
  else if (event.key === "+") zoom(.5, playing()); else if (event.key === "-") zoom(2, playing()); else return;
  event.preventDefault(); });
document.querySelectorAll("button.go").forEach((button) => button.addEventListener("click", () => {
  const [start, end] = data.events[+button.dataset.event];
  go(start); stopAt = end;
  if (player.readyState > 0) player.play();
  detail.scrollIntoView({ block: "center" });
}));
if (!player.getAttribute("src") && $("file")) {
  const next = () => { if (tried < data.sources.length) player.src = data.sources[tried++]; };
  player.addEventListener("error", next);
  player.addEventListener("loadedmetadata", () => { $("where").hidden = true; if (clock0) player.currentTime = clock0; });
  $("file").addEventListener("change", (event) => { const [file] = event.target.files;
    if (file) player.src = URL.createObjectURL(file); });
  next();
}
legend();
if (spectrum.complete) draw(); else spectrum.addEventListener("load", draw);
window.addEventListener("resize", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
