// The annotation page: candidates of a case, accepted, rejected, refined, added.
"use strict";

import { ball, Change, disc, island, line, measure } from "./editing.js";
import { deflate, inflate, post } from "./net.js";
import { cut, element, hull, keys, place, Session, take } from "./session.js";
import { showSolid } from "./solid.js";
import { Viewer, WINDOWS } from "./viewer.js";

const COLORS = { open: "#ffd23f", accepted: "#4fe38a", rejected: "#8d99a6" };
const TOOLS = { b: "brush", e: "eraser", t: "threshold", i: "island" };

let content = null; // {candidates, verdict}
let selected = 0; // label
let tool = "";
let sizes = new Map(); // label -> {voxels, at}
let undone = []; // what can be undone, the last step last
let change = null;
let last = null;

const viewer = new Viewer(element("viewer"), {
  windowed: (width, level, how) => session.task && session.note("window", { width, level, how }),
  stroke,
});
const session = new Session({ open, close });

viewer.colors = (label) => {
  const entry = candidate(label);
  if (!entry) return null;
  const width = label === selected ? 2.4 : 1.2;
  return [COLORS[entry.status], width, entry.status === "rejected" ? [4, 3] : []];
};

const candidate = (label) => content && content.candidates.find((entry) => entry.label === label);
const canDraw = () => session.work.stages[session.work.tasks[session.number].stage].tools === "refine";

function open(task) {
  content = task.state.content;
  undone = [];
  viewer.show(task.scans[0], task.shape, task.spacing_mm, task.labels);
  task.held = task.box; // every label lies in it
  sizes = measure(task.labels, task.shape, task.held);
  selected = 0;
  setTool("");
  element("refining").hidden = !canDraw();
  const stages = session.work.stages;
  const stage = session.work.tasks[session.number].stage;
  element("stage").textContent = stages.length > 1 ? `${stages[stage].name} (${stage + 1} of ${stages.length})` : "";
  element("structure").textContent = `${task.facts.structure} ${task.facts.case}`;
  element("oblique").textContent = task.angle_degrees > 1
    ? `The scan is turned by ${task.angle_degrees}° against the body and shown along its own axes.` : "";
  const first = content.candidates.find((entry) => entry.status === "open") || content.candidates[0];
  if (first) select(first.label);
  else list();
}

function close() {
  content = null;
  viewer.clear();
  element("candidates").replaceChildren();
  element("left").textContent = "";
}

function select(label) {
  selected = label;
  const known = sizes.get(label);
  if (known) { viewer.go(known.at); viewer.center(); }
  list();
  viewer.draw();
}

function list() {
  const rows = content.candidates.map((entry) => {
    const row = document.createElement("li");
    const known = session.task.facts.known[entry.label];
    const voxels = (sizes.get(entry.label) || { voxels: 0 }).voxels;
    const mm3 = voxels * viewer.spacing[0] * viewer.spacing[1] * viewer.spacing[2];
    const diameter = Math.cbrt((6 * mm3) / Math.PI).toFixed(0);
    const score = entry.origin === "reader" ? "added" : known && known.score !== null ? known.score.toFixed(2) : "";
    row.dataset.status = entry.status;
    row.dataset.label = entry.label;
    row.setAttribute("aria-current", entry.label === selected);
    for (const [kind, text] of [["name", `lesion ${entry.label}`], ["size", `${diameter} mm`], ["score", score],
      ["status", entry.disputed ? `${entry.status}, disputed` : entry.status]]) {
      const part = document.createElement("span");
      part.className = kind;
      part.textContent = text;
      row.append(part);
    }
    row.addEventListener("click", () => select(entry.label));
    return row;
  });
  element("candidates").replaceChildren(...rows);
  const current = rows.find((row) => Number(row.dataset.label) === selected);
  if (current) current.scrollIntoView({ block: "nearest" });
  element("none").hidden = rows.length > 0;
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", content.verdict === button.dataset.verdict);
  }
  const left = content.candidates.filter((entry) => entry.status === "open").length;
  element("left").textContent = session.task.state.final ? "finished" : left ? `${left} open` : "ready to finish";
}

// Keeps the present state. drawn: the change of the mask, if there is one.
function save(action, drawn = null, detail = {}, final = false) {
  const task = session.task;
  let upload = null;
  if (drawn) {
    task.held = hull(task.held, drawn.box(task.shape));
    sizes = measure(task.labels, task.shape, task.held);
    const box = sizes.size ? task.held : [0, 0, 0, 0, 0, 0];
    const voxels = take(task.labels, task.shape, box);
    upload = async () => {
      const body = new Blob([`${JSON.stringify(box)}\n`, box[3] ? await deflate(voxels) : ""]);
      return (await post(`/api/task/${task.code}/mask`, body, "application/octet-stream")).digest;
    };
  }
  const saved = session.save(content, { final, action, detail: { lesion: selected, ...detail }, upload });
  list();
  viewer.draw();
  return saved.then(() => list(), () => {});
}

function remember(changed = null) {
  undone.push({ content: JSON.stringify(content), changed, selected });
}

function judge(status) {
  const entry = candidate(selected);
  if (!entry) return;
  remember();
  const was = entry.status;
  entry.status = status;
  save(status === "open" ? "reopen" : status.replace(/ed$/, ""), null, { was });
  if (status !== "open") nextLesion(1, true);
}

function nextLesion(by, openOnly = false) {
  const labels = content.candidates.filter((entry) => !openOnly || entry.status === "open").map((entry) => entry.label);
  if (!labels.length) return;
  const at = labels.indexOf(selected);
  select(labels[at < 0 ? 0 : (at + by + labels.length) % labels.length]);
}

function addLesion() {
  if (!canDraw()) { session.say("In this stage lesions are accepted or rejected only."); return; }
  const label = Math.max(0, ...content.candidates.map((entry) => entry.label)) + 1;
  if (label > 255) { session.say("A case holds at most 255 lesions."); return; }
  remember();
  content.candidates.push({ label, status: "accepted", origin: "reader", disputed: false });
  content.verdict = "";
  selected = label;
  setTool("brush");
  save("add");
}

function verdict(value) {
  remember();
  content.verdict = content.verdict === value ? "" : value;
  save("verdict", null, { verdict: content.verdict });
}

function undo() {
  const step = undone.pop();
  if (!step) { session.say("There is nothing to undo in this case since it was opened."); return; }
  content = JSON.parse(step.content);
  if (step.changed) step.changed.undo();
  selected = step.selected;
  save("undo", step.changed);
}

function setTool(name) {
  tool = tool === name ? "" : name;
  if (tool && !canDraw()) { session.say("In this stage lesions are accepted or rejected only."); tool = ""; }
  viewer.brush = tool ? Number(element("size").value) : 0;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", button.dataset.tool === tool);
  }
  viewer.draw();
}

function stroke(phase, view, ijk) {
  if (!session.task) return;
  const entry = candidate(selected);
  if (!entry && tool !== "island") { session.say("Choose a lesion first, or add one with m."); return; }
  const radius = viewer.brush * Math.min(viewer.spacing[view.columns], viewer.spacing[view.rows]);
  const paint = (at) => { if (!viewer.labels[at]) change.set(at, selected); };
  const erase = (at) => { if (viewer.labels[at] === selected) change.set(at, 0); };
  if (phase === "begin") {
    change = new Change(viewer.labels);
    last = ijk;
    const [low, high] = [Number(element("low").value), Number(element("high").value)];
    if (tool === "threshold") ball(viewer, ijk, radius, low, high, paint);
    else if (tool === "island") island(viewer, ijk, (at) => change.set(at, 0));
    else disc(viewer, view, ijk, radius, tool === "brush" ? paint : erase);
  } else if (change && (tool === "brush" || tool === "eraser")) {
    line(viewer, view, last, ijk, radius, tool === "brush" ? paint : erase);
    last = ijk;
  }
  if (phase === "end" && change) {
    const done = change;
    change = null;
    if (done.size) drew(done, tool);
  }
  viewer.draw();
}

// After voxels changed: what was drawn on is accepted, what has no voxel left is gone.
function drew(done, how) {
  remember(done);
  const entry = candidate(selected);
  if (entry && how !== "island") entry.status = "accepted";
  if (how !== "island") content.verdict = "";
  const held = hull(session.task.held, done.box(viewer.shape));
  const kept = new Set(measure(viewer.labels, viewer.shape, held).keys());
  for (const lost of content.candidates.filter((other) => !kept.has(other.label) && other.status === "accepted")) {
    if (lost.origin === "model") lost.status = "rejected";
    else if (how !== "brush") content.candidates = content.candidates.filter((other) => other !== lost);
  }
  save(how, done, { voxels: done.size });
}

async function fill() {
  const task = session.task;
  if (!candidate(selected) || !canDraw()) return;
  const { box, voxels } = cut(task.labels, task.shape, (label) => label === selected);
  if (!box[3]) return;
  try {
    const body = new Blob([`${JSON.stringify(box)}\n`, await deflate(voxels)]);
    const answer = await post(`/api/task/${task.code}/fill`, body, "application/octet-stream");
    const end = answer.indexOf(10);
    const filled = JSON.parse(new TextDecoder().decode(answer.subarray(0, end)));
    const whole = new Uint8Array(task.labels.length);
    place(whole, task.shape, filled, await inflate(answer.subarray(end + 1)));
    const done = new Change(task.labels);
    for (let at = 0; at < whole.length; at++) if (whole[at] && !task.labels[at]) done.set(at, selected);
    if (done.size) drew(done, "fill");
    else session.say("Nothing to fill: draw the lesion on two slices with a gap between them.");
  } catch (error) { session.say(error.message); }
}

// The mask as a file, for a tool that draws in 3-D.
function download() {
  const link = document.createElement("a");
  link.href = `/api/task/${session.task.code}/nifti`;
  link.download = `lesions_${session.number + 1}.nii.gz`;
  link.click();
}

// A mask file from such a tool: each value is a lesion; new values are lesions added.
async function readBack(file) {
  const task = session.task;
  if (!canDraw()) { session.say("In this stage lesions are accepted or rejected only."); return; }
  try {
    const answer = await post(`/api/task/${task.code}/nifti`, file, "application/octet-stream");
    const end = answer.indexOf(10);
    const box = JSON.parse(new TextDecoder().decode(answer.subarray(0, end)));
    const whole = new Uint8Array(task.labels.length);
    if (box[3]) place(whole, task.shape, box, await inflate(answer.subarray(end + 1)));
    const done = new Change(task.labels);
    remember(done);
    for (let at = 0; at < whole.length; at++) done.set(at, whole[at]);
    const found = measure(whole, task.shape, box);
    for (const label of found.keys()) {
      const entry = candidate(label);
      if (!entry) content.candidates.push({ label, status: "accepted", origin: "reader", disputed: false });
      else if (entry.status === "open") entry.status = "accepted";
    }
    for (const entry of content.candidates) if (!found.has(entry.label)) entry.status = "rejected";
    content.verdict = "";
    save("read back", done, { voxels: done.size });
    session.say(`${found.size} lesions were read from the file.`);
  } catch (error) { session.say(error.message); }
}

async function finish() {
  const left = content.candidates.filter((entry) => entry.status === "open").length;
  if (left && !content.verdict) {
    session.say(`${left} ${left === 1 ? "candidate is" : "candidates are"} still open: accept (a) or reject (r).`);
    if (!candidate(selected) || candidate(selected).status !== "open") nextLesion(1, true);
    return;
  }
  const code = session.task.code;
  await save("finish", null, {}, true);
  if (!session.work.tasks.find((task) => task.code === code).done) return; // refused, and said why
  const next = session.nextOpen();
  if (next >= 0) session.go(next);
  else session.say("All is done. Thank you. You can still look through the cases.");
}

function resize(by) {
  const size = element("size");
  size.value = Math.min(40, Math.max(1, Number(size.value) + by));
  if (tool) viewer.brush = Number(size.value);
  viewer.draw();
}

const actions = {
  a: () => judge("accepted"), r: () => judge("rejected"), o: () => judge("open"),
  n: () => nextLesion(1), p: () => nextLesion(-1), m: addLesion, u: undo, "ctrl+z": undo, f: fill,
  k: () => verdict("no tumor"), j: () => verdict("cannot be read"), Enter: finish,
  "[": () => resize(-1), "]": () => resize(1), Escape: () => setTool(""),
  v: () => showSolid(element("solid"), viewer).catch((error) => session.say(error.message)),
  ...Object.fromEntries(Object.entries(TOOLS).map(([key, name]) => [key, () => setTool(name)])),
  ...Object.fromEntries(Object.entries(WINDOWS).map(([key, preset]) => [key, () => viewer.setWindow(preset[1], preset[2], preset[0])])),
};
keys(session, viewer, actions);
for (const button of document.querySelectorAll("[data-key]")) {
  button.addEventListener("click", () => {
    if (session.task) actions[button.dataset.key]();
    button.blur();
  });
}
element("size").addEventListener("input", () => resize(0));
for (const id of ["helper", "close", "leave"]) element(id).addEventListener("click", () => {
  if (id === "helper") element("help").showModal();
  else element(id === "close" ? "help" : "solid").close();
});
element("download").addEventListener("click", () => { if (session.task) download(); });
element("upload").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", (event) => {
  if (event.target.files.length && session.task) readBack(event.target.files[0]);
  event.target.value = "";
});
window.review = { session, viewer, get content() { return content; }, get selected() { return selected; } };
session.start();
