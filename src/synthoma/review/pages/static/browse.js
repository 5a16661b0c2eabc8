// Looking through a synthesis: a tumor before and after, accepted or dropped.
"use strict";

import { element, keys, Session } from "./session.js";
import { showSolid } from "./solid.js";
import { Viewer, WINDOWS } from "./viewer.js";

let before = false;
const viewer = new Viewer(element("viewer"));
viewer.colors = () => ["#ff6b5e", 1.4, []];
const session = new Session({ open, close: () => viewer.clear(), scans: () => 2 });

function open(task) {
  before = false;
  viewer.show(task.scans[0], task.shape, task.spacing_mm, task.labels);
  const [total, at] = [task.labels.reduce((sum, label) => sum + (label ? 1 : 0), 0), [0, 0, 0]];
  task.labels.forEach((label, index) => {
    if (!label) return;
    at[0] += index % task.shape[0];
    at[1] += Math.floor(index / task.shape[0]) % task.shape[1];
    at[2] += Math.floor(index / (task.shape[0] * task.shape[1]));
  });
  if (total) viewer.go(at.map((sum) => sum / total));
  element("caption").textContent = `${task.facts.organ}, tumor ${task.facts.number}`;
  element("facts").textContent = task.facts.caption;
  element("remark").value = (task.state.content && task.state.content.remark) || "";
  list();
}

function list() {
  const status = session.task.state.content && session.task.state.content.status;
  for (const button of document.querySelectorAll("[data-status]")) {
    button.setAttribute("aria-pressed", button.dataset.status === status);
  }
  element("switch").setAttribute("aria-pressed", before);
}

function turn() {
  if (!session.task) return;
  before = !before;
  viewer.scan = session.task.scans[before ? 1 : 0];
  viewer.draw();
  list();
}

async function judge(status) {
  if (!session.task) return;
  try {
    await session.save({ status, remark: element("remark").value }, { final: true, action: status });
  } catch (error) { return; }
  const next = session.nextOpen();
  if (next >= 0) session.go(next);
  else { list(); session.say("All tumors are judged. Thank you."); }
}

keys(session, viewer, {
  " ": turn, a: () => judge("accepted"), d: () => judge("dropped"),
  v: () => showSolid(element("solid"), viewer).catch((error) => session.say(error.message)),
  ...Object.fromEntries(Object.entries(WINDOWS).map(([key, preset]) => [key, () => viewer.setWindow(preset[1], preset[2], preset[0])])),
});
for (const button of document.querySelectorAll("[data-status]")) {
  button.addEventListener("click", () => { judge(button.dataset.status); button.blur(); });
}
element("switch").addEventListener("click", (event) => { turn(); event.target.blur(); });
element("solidly").addEventListener("click", () => showSolid(element("solid"), viewer));
element("helper").addEventListener("click", () => element("help").showModal());
element("close").addEventListener("click", () => element("help").close());
element("leave").addEventListener("click", () => element("solid").close());
window.review = { session, viewer };
session.start();
