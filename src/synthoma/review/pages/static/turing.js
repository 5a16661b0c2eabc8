// The blinded study: one lesion rated, or the synthetic one of two chosen.
"use strict";

import { element, keys, Session } from "./session.js";
import { Viewer, WINDOWS } from "./viewer.js";

let content = {};
let clock = null;
const viewers = [new Viewer(element("viewer"), { windowed })];
const session = new Session({ open, close: () => viewers.forEach((viewer) => viewer.clear()), scans: (facts) => facts.facts.spacings_mm.length });

// Two lesions at once share their window.
function windowed(width, level, how) {
  for (const viewer of viewers) { viewer.width = width; viewer.level = level; viewer.draw(); }
  if (session.task) session.note("window", { width, level, how });
}

function open(task) {
  const two = task.scans.length === 2;
  if (two && viewers.length === 1) {
    const second = document.createElement("div");
    second.id = "second";
    second.className = "viewer";
    element("viewer").after(second);
    document.body.classList.add("two");
    viewers.push(new Viewer(second, { windowed }));
  }
  content = { rating: null, choice: null, signs: [], late: false, ...task.state.content };
  viewers.forEach((viewer, n) => viewer.show(task.scans[n], task.shape, task.facts.spacings_mm[n], null));
  element("question").textContent = two ? "One of the two lesions is synthetic. Which?"
    : "Is the lesion at the center real or synthetic?";
  for (const id of ["rating", "ends"]) element(id).hidden = two;
  element("choice").hidden = !two;
  if (!element("signs").childElementCount) element("signs").append(...session.work.signs.map(sign));
  startClock();
  list();
}

function sign(name) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.value = name;
  box.addEventListener("change", () => {
    content.signs = [...document.querySelectorAll("#signs input:checked")].map((each) => each.value);
    box.blur();
  });
  label.append(box, ` ${name}`);
  return label;
}

function list() {
  for (const button of document.querySelectorAll("[data-rating]")) {
    button.setAttribute("aria-pressed", content.rating === Number(button.dataset.rating));
  }
  for (const button of document.querySelectorAll("[data-choice]")) {
    button.setAttribute("aria-pressed", content.choice === button.dataset.choice);
  }
  for (const box of document.querySelectorAll("#signs input")) box.checked = content.signs.includes(box.value);
}

function startClock() {
  clearInterval(clock);
  const limit = session.work.seconds;
  element("clock").hidden = !limit;
  if (!limit || session.task.state.final) return;
  const ends = performance.now() + 1000 * limit;
  const tick = () => {
    const left = Math.ceil((ends - performance.now()) / 1000);
    element("clock").textContent = left > 0 ? `${left} s` : "The time is over: answer from what you saw.";
    if (left > 0) return;
    clearInterval(clock);
    content.late = true;
    viewers.forEach((viewer) => viewer.clear());
  };
  clock = setInterval(tick, 250);
  tick();
}

function rate(number) {
  if (!session.task) return;
  if (viewers.length === 2) {
    if (number > 2) return;
    content.choice = number === 1 ? "first" : "second";
  } else content.rating = number;
  list();
}

async function next() {
  if (!session.task) return;
  if (content.rating === null && content.choice === null) {
    session.say(viewers.length === 2 ? "Say which of the two is synthetic." : "Give a rating from 1 to 6.");
    return;
  }
  clearInterval(clock);
  const code = session.task.code;
  try { await session.save(content, { final: true, action: "rate" }); } catch (error) { return; }
  if (session.task.code !== code) return;
  const open = session.nextOpen();
  if (open >= 0) session.go(open);
  else session.say("All is done. Thank you.");
}

const presets = Object.values(WINDOWS);
keys(session, viewers[0], {
  ...Object.fromEntries([1, 2, 3, 4, 5, 6].map((n) => [String(n), () => rate(n)])),
  ...Object.fromEntries(["q", "w", "e", "r", "t"].map((key, n) => [key, () => viewers[0].setWindow(presets[n][1], presets[n][2], presets[n][0])])),
  l: () => viewers.forEach((viewer) => viewer.go(viewer.shape.map((n) => Math.floor(n / 2)))),
  Enter: next,
});
for (const button of document.querySelectorAll("[data-rating]")) button.addEventListener("click", () => { rate(Number(button.dataset.rating)); button.blur(); });
for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => { rate(button.dataset.choice === "first" ? 1 : 2); button.blur(); });
element("next").addEventListener("click", next);
element("helper").addEventListener("click", () => element("help").showModal());
element("close").addEventListener("click", () => element("help").close());
window.review = { session, viewer: viewers[0], viewers, get content() { return content; } };
session.start();
