// One reader's way through the tasks: loads a case, loads the next one meanwhile, saves answers, counts time.
"use strict";

import { getBytes, getJson, inflate, newKey, post, Queue } from "./net.js";

export const element = (id) => document.getElementById(id);

export class Session {
  // open(task): shows a loaded task. scans(facts): how many scans a task has.
  constructor({ open, close = () => {}, scans = () => 1 }) {
    this.open = open;
    this.close = close; // what was open is so no longer: keys mean nothing until another case is
    this.task = null;
    this.scans = scans;
    this.loaded = new Map();
    this.queue = new Queue((waiting, sentence) => {
      element("saved").textContent = waiting ? "saving" : "saved";
      element("saved").dataset.waiting = waiting;
      if (sentence) this.say(sentence);
      else if (!waiting && this.said && this.said.startsWith("The server does not answer")) this.say("");
    });
  }

  say(sentence) {
    this.said = sentence;
    element("message").textContent = sentence;
    element("message").hidden = !sentence;
  }

  async start() {
    try {
      this.work = await getJson("/api/work");
    } catch (error) { this.say(error.message); return; }
    element("reader").textContent = this.work.reader + (this.work.role === "reader" ? "" : `, ${this.work.role}`);
    this.progress();
    const first = this.work.tasks.findIndex((task) => !task.done);
    if (!this.work.tasks.length) this.say("Nothing is before you now. Reload this page when it is your turn.");
    else await this.go(first < 0 ? 0 : first);
    if (first < 0 && this.work.tasks.length) this.say("All is done. Thank you. You can still look through the cases.");
  }

  progress() {
    const done = this.work.tasks.filter((task) => task.done).length;
    element("progress").max = Math.max(1, this.work.tasks.length);
    element("progress").value = done;
    element("count").textContent = `${done} of ${this.work.tasks.length} done`;
  }

  load(number, progress) {
    const { code } = this.work.tasks[number];
    if (!this.loaded.has(code)) {
      const loading = this.read(code, progress);
      loading.catch(() => this.loaded.delete(code));
      this.loaded.set(code, loading);
    }
    return this.loaded.get(code);
  }

  async read(code, progress) {
    const facts = await getJson(`/api/task/${code}`);
    const size = facts.shape[0] * facts.shape[1] * facts.shape[2];
    const labels = new Uint8Array(size);
    if (facts.box[3]) {
      const response = await fetch(`/api/task/${code}/labels`);
      place(labels, facts.shape, facts.box, await inflate(new Uint8Array(await response.arrayBuffer())));
    }
    const scans = [];
    for (let which = 0; which < this.scans(facts); which++) {
      scans.push(new Int16Array(await getBytes(`/api/task/${code}/scan/${which}`, progress)));
    }
    return { code, ...facts, labels, scans };
  }

  async go(number) {
    if (number < 0 || number >= this.work.tasks.length) return;
    this.number = number;
    this.task = null;
    this.say("");
    element("loading").hidden = false;
    const asked = performance.now();
    try {
      const task = await this.load(number, (share) => { element("loading").textContent = `loading ${Math.round(100 * share)} %`; });
      if (this.number !== number) return;
      this.task = task;
      this.began = performance.now();
      this.open(task);
      requestAnimationFrame(() => { document.body.dataset.shown = task.code; this.shownAfter = performance.now() - asked; });
      // the next case is read while this one is; older ones are let go
      const kept = [number, number + 1].filter((n) => n < this.work.tasks.length).map((n) => this.work.tasks[n].code);
      for (const code of [...this.loaded.keys()]) if (!kept.includes(code)) this.loaded.delete(code);
      if (number + 1 < this.work.tasks.length) this.load(number + 1).catch(() => {});
    } catch (error) {
      this.close();
      document.body.dataset.failed = this.work.tasks[number].code;
      this.say(error.message);
    }
    element("loading").hidden = true;
    element("place").textContent = `${number + 1} of ${this.work.tasks.length}`;
  }

  // Saves an answer. upload: nothing, or a function that sends a mask first and gives its digest.
  save(content, { final = false, action = "", detail = {}, upload = null } = {}) {
    const task = this.task;
    const key = newKey();
    const seconds = (performance.now() - this.began) / 1000;
    const kept = JSON.parse(JSON.stringify(content));
    let digest;
    return this.queue.add(async () => {
      if (upload && digest === undefined) digest = await upload();
      task.state.mask = digest || task.state.mask;
      const body = JSON.stringify({
        key, after: task.state.number, content: kept, mask: task.state.mask, final, seconds, action, detail,
      });
      const answer = await post(`/api/task/${task.code}/answer`, body);
      task.state = { number: answer.number, content: kept, mask: task.state.mask, final };
      const known = this.work.tasks.find((entry) => entry.code === task.code);
      known.done = final;
      this.progress();
      return answer;
    });
  }

  note(action, detail) {
    const { code } = this.task;
    return this.queue.add(() => post(`/api/task/${code}/note`, JSON.stringify({ action, detail })));
  }

  nextOpen() {
    const open = this.work.tasks.map((task, number) => [task, number]).filter(([task]) => !task.done);
    const later = open.find(([, number]) => number > this.number) || open[0];
    return later ? later[1] : -1;
  }
}

// Writes the voxels of a box into a whole volume.
export function place(labels, shape, box, voxels) {
  const [i0, j0, k0, ni, nj, nk] = box;
  for (let k = 0; k < nk; k++) {
    for (let j = 0; j < nj; j++) {
      labels.set(voxels.subarray(ni * (j + nj * k), ni * (j + nj * k) + ni), i0 + shape[0] * (j0 + j + shape[1] * (k0 + k)));
    }
  }
}

// The box that holds both boxes; six zeros hold nothing.
export function hull(one, two) {
  if (!one[3]) return two;
  if (!two[3]) return one;
  const low = [0, 1, 2].map((axis) => Math.min(one[axis], two[axis]));
  return [...low, ...[0, 1, 2].map((axis) => Math.max(one[axis] + one[axis + 3], two[axis] + two[axis + 3]) - low[axis])];
}

// The voxels of a box.
export function take(labels, shape, [i0, j0, k0, ni, nj, nk]) {
  const voxels = new Uint8Array(ni * nj * nk);
  for (let k = 0; k < nk; k++) {
    for (let j = 0; j < nj; j++) {
      const from = i0 + shape[0] * (j0 + j + shape[1] * (k0 + k));
      voxels.set(labels.subarray(from, from + ni), ni * (j + nj * k));
    }
  }
  return voxels;
}

// The voxels of the smallest box that holds every label that counts; six zeros if there is none.
export function cut(labels, shape, counts = (label) => label) {
  const [low, high] = [[...shape], [-1, -1, -1]];
  let at = 0;
  for (let k = 0; k < shape[2]; k++) {
    for (let j = 0; j < shape[1]; j++) {
      for (let i = 0; i < shape[0]; i++, at++) {
        if (!labels[at] || !counts(labels[at])) continue;
        if (i < low[0]) low[0] = i;
        if (i > high[0]) high[0] = i;
        if (j < low[1]) low[1] = j;
        if (j > high[1]) high[1] = j;
        if (k < low[2]) low[2] = k;
        if (k > high[2]) high[2] = k;
      }
    }
  }
  if (high[0] < 0) return { box: [0, 0, 0, 0, 0, 0], voxels: new Uint8Array(0) };
  const size = low.map((value, axis) => high[axis] - value + 1);
  const voxels = new Uint8Array(size[0] * size[1] * size[2]);
  for (let k = 0, to = 0; k < size[2]; k++) {
    for (let j = 0; j < size[1]; j++) {
      let from = low[0] + shape[0] * (low[1] + j + shape[1] * (low[2] + k));
      for (let i = 0; i < size[0]; i++, from++, to++) if (counts(labels[from])) voxels[to] = labels[from];
    }
  }
  return { box: [...low, ...size], voxels };
}

const ALWAYS = ["PageUp", "PageDown", "h", "?"]; // while no case is open

// Keys that every page has; handlers: key -> function. Returns what a page's help card lists.
export function keys(session, viewer, handlers) {
  window.addEventListener("keydown", (event) => {
    if (event.target.matches("input, textarea, select") || event.metaKey || event.altKey) return;
    const help = element("help");
    if (event.key === "Escape" && help.open) return;
    if (event.ctrlKey && event.key !== "z") return;
    const key = event.ctrlKey ? "ctrl+z" : event.key;
    const handler = handlers[key] || shared(session, viewer)[key];
    if (!handler || (!session.task && !ALWAYS.includes(key))) return;
    event.preventDefault();
    handler();
  });
}

function shared(session, viewer) {
  return {
    ArrowUp: () => viewer.step(1), ArrowDown: () => viewer.step(-1),
    "+": () => viewer.zoom(viewer.planes[viewer.large], 1.25), "-": () => viewer.zoom(viewer.planes[viewer.large], 0.8),
    x: () => { viewer.large = (viewer.large + 1) % 3; viewer.arrange(); viewer.draw(); },
    c: () => { viewer.contours = !viewer.contours; viewer.draw(); },
    h: () => { const help = element("help"); if (help.open) help.close(); else help.showModal(); },
    "?": () => element("help").showModal(),
    PageDown: () => session.go(session.number + 1), PageUp: () => session.go(session.number - 1),
  };
}
