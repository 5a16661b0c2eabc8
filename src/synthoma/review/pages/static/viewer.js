// Three linked planes of a scan on 2-D canvases. Voxels are Int16Array, first axis (to the patient's left) fastest,
// then to the back, then to the head: the patient's right is on the left of the screen.
"use strict";

export const WINDOWS = {
  "1": ["soft tissue", 400, 40], "2": ["liver", 150, 90], "3": ["mediastinum", 350, 50],
  "4": ["lung", 1500, -600], "5": ["bone", 1800, 400],
};

// columns: axis to the right; rows: axis downwards; up: rows are drawn from the last to the first
const PLANES = [
  { name: "axial", normal: 2, columns: 0, rows: 1, up: false, edges: ["R", "L", "A", "P"] },
  { name: "coronal", normal: 1, columns: 0, rows: 2, up: true, edges: ["R", "L", "S", "I"] },
  { name: "sagittal", normal: 0, columns: 1, rows: 2, up: true, edges: ["A", "P", "S", "I"] },
];

export class Viewer {
  // root: element that gets three canvases. on: callbacks {moved, windowed, stroke(kind, points)}.
  constructor(root, on = {}) {
    this.root = root;
    this.on = on;
    this.scan = null;
    this.labels = null;
    this.colors = () => null; // label -> [color, width, dash] of its contour, null for none
    this.contours = true;
    this.width = 400;
    this.level = 40;
    this.brush = 0; // radius in voxels of the finest in-plane axis; 0: the mouse moves the cross-hair
    this.large = 0; // the plane that gets the large place
    this.planes = PLANES.map((plane) => this.makePlane(plane));
    this.arrange();
    new ResizeObserver(() => this.draw()).observe(root);
  }

  makePlane(plane) {
    const box = document.createElement("div");
    box.className = "plane";
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-label", plane.name);
    canvas.dataset.plane = plane.name;
    box.append(canvas);
    this.root.append(box);
    const view = { ...plane, box, canvas, buffer: document.createElement("canvas"), zoom: 1, pan: [0, 0], drag: null };
    canvas.addEventListener("wheel", (event) => this.wheel(view, event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(view, event));
    canvas.addEventListener("pointermove", (event) => this.move(view, event));
    canvas.addEventListener("pointerup", (event) => this.release(view, event));
    canvas.addEventListener("pointercancel", (event) => this.release(view, event));
    canvas.addEventListener("pointerleave", () => { view.hover = null; this.draw(); });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => { this.large = this.planes.indexOf(view); this.arrange(); this.draw(); });
    return view;
  }

  arrange() {
    this.planes.forEach((view, number) => view.box.classList.toggle("large", number === this.large));
  }

  // data: Int16Array; shape and spacing of its axes; labels: Uint8Array or null.
  show(data, shape, spacing, labels) {
    this.scan = data;
    this.shape = shape;
    this.spacing = spacing;
    this.labels = labels;
    this.at = shape.map((n) => Math.floor(n / 2));
    for (const view of this.planes) { view.zoom = 1; view.pan = [0, 0]; }
    this.draw();
  }

  clear() { this.scan = null; this.labels = null; this.draw(); }

  index(ijk) { return ijk[0] + this.shape[0] * (ijk[1] + this.shape[1] * ijk[2]); }

  go(ijk) {
    this.at = ijk.map((value, axis) => Math.min(this.shape[axis] - 1, Math.max(0, Math.round(value))));
    this.draw();
    if (this.on.moved) this.on.moved(this.at);
  }

  // Moves zoomed pictures so that the cross-hair is in their middle.
  center() {
    for (const view of this.planes) {
      if (view.zoom === 1) continue;
      const frame = this.frame(view);
      const row = view.up ? this.shape[view.rows] - 1 - this.at[view.rows] : this.at[view.rows];
      view.pan[0] += view.box.clientWidth / 2 - (frame.x + (this.at[view.columns] + 0.5) * frame.dx);
      view.pan[1] += view.box.clientHeight / 2 - (frame.y + (row + 0.5) * frame.dy);
    }
    this.draw();
  }

  step(by, view = this.planes[this.large]) {
    if (!this.scan) return;
    const next = [...this.at];
    next[view.normal] += by;
    this.go(next);
  }

  setWindow(width, level, how) {
    this.width = Math.max(1, Math.round(width));
    this.level = Math.round(level);
    this.draw();
    if (this.on.windowed) this.on.windowed(this.width, this.level, how);
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.planes.forEach((view) => this.paint(view)); });
  }

  // Pixels of one voxel, and where the first one lies.
  frame(view) {
    const [wide, high] = [view.box.clientWidth, view.box.clientHeight];
    const mm = [this.spacing[view.columns], this.spacing[view.rows]];
    const size = [this.shape[view.columns] * mm[0], this.shape[view.rows] * mm[1]];
    const scale = Math.min(wide / size[0], high / size[1]) * view.zoom;
    return {
      x: wide / 2 + view.pan[0] - (size[0] * scale) / 2, y: high / 2 + view.pan[1] - (size[1] * scale) / 2,
      dx: mm[0] * scale, dy: mm[1] * scale,
    };
  }

  strides() { return [1, this.shape[0], this.shape[0] * this.shape[1]]; }

  slice(view) {
    const strides = this.strides();
    const [columns, rows] = [this.shape[view.columns], this.shape[view.rows]];
    return { columns, rows, right: strides[view.columns], down: strides[view.rows],
      start: this.at[view.normal] * strides[view.normal] };
  }

  paint(view) {
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [view.box.clientWidth, view.box.clientHeight];
    if (view.canvas.width !== Math.round(wide * ratio) || view.canvas.height !== Math.round(high * ratio)) {
      view.canvas.width = Math.round(wide * ratio);
      view.canvas.height = Math.round(high * ratio);
    }
    // on the CPU: it is as fast here, and graphics in software left parts of the picture before
    const pen = view.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    if (!this.scan || !wide || !high) return;
    const { columns, rows, right, down, start } = this.slice(view);
    if (view.buffer.width !== columns || view.buffer.height !== rows) {
      view.buffer.width = columns;
      view.buffer.height = rows;
    }
    const ink = view.buffer.getContext("2d", { willReadFrequently: true });
    const image = ink.createImageData(columns, rows);
    const gray = new Uint32Array(image.data.buffer);
    const [low, gain] = [this.level - this.width / 2, 256 / this.width];
    for (let row = 0; row < rows; row++) {
      let from = start + (view.up ? rows - 1 - row : row) * down;
      const to = row * columns;
      for (let column = 0; column < columns; column++, from += right) {
        let value = (this.scan[from] - low) * gain;
        value = value < 0 ? 0 : value > 255 ? 255 : value | 0;
        gray[to + column] = 0xff000000 | (value << 16) | (value << 8) | value;
      }
    }
    ink.putImageData(image, 0, 0);
    const frame = this.frame(view);
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(view.buffer, frame.x, frame.y, columns * frame.dx, rows * frame.dy);
    if (this.contours && this.labels) this.paintContours(view, pen, frame);
    this.paintMarks(view, pen, frame, wide, high);
  }

  // The borders of every label, along voxel edges.
  paintContours(view, pen, frame) {
    const { columns, rows, right, down, start } = this.slice(view);
    const paths = new Map();
    for (let row = 0; row < rows; row++) {
      const line = view.up ? rows - 1 - row : row;
      let at = start + line * down;
      for (let column = 0; column < columns; column++, at += right) {
        const label = this.labels[at];
        if (!label) continue;
        if (!paths.has(label)) paths.set(label, new Path2D());
        const path = paths.get(label);
        const [x, y] = [frame.x + column * frame.dx, frame.y + row * frame.dy];
        const above = view.up ? line + 1 < rows && this.labels[at + down] : line > 0 && this.labels[at - down];
        const below = view.up ? line > 0 && this.labels[at - down] : line + 1 < rows && this.labels[at + down];
        if (above !== label) { path.moveTo(x, y); path.lineTo(x + frame.dx, y); }
        if (below !== label) { path.moveTo(x, y + frame.dy); path.lineTo(x + frame.dx, y + frame.dy); }
        if (!(column > 0 && this.labels[at - right] === label)) { path.moveTo(x, y); path.lineTo(x, y + frame.dy); }
        if (!(column + 1 < columns && this.labels[at + right] === label)) {
          path.moveTo(x + frame.dx, y); path.lineTo(x + frame.dx, y + frame.dy);
        }
      }
    }
    for (const [label, path] of paths) {
      const style = this.colors(label);
      if (!style) continue;
      pen.strokeStyle = style[0];
      pen.lineWidth = style[1];
      pen.setLineDash(style[2] || []);
      pen.stroke(path);
    }
    pen.setLineDash([]);
  }

  paintMarks(view, pen, frame, wide, high) {
    const row = view.up ? this.shape[view.rows] - 1 - this.at[view.rows] : this.at[view.rows];
    const x = frame.x + (this.at[view.columns] + 0.5) * frame.dx, y = frame.y + (row + 0.5) * frame.dy;
    pen.strokeStyle = "rgba(120, 190, 255, 0.45)";
    pen.lineWidth = 1;
    const gap = 14; // the cross-hair leaves what it points at in sight
    for (const [a, b, c, d] of [[0, y, x - gap, y], [x + gap, y, wide, y], [x, 0, x, y - gap], [x, y + gap, x, high]]) {
      pen.beginPath(); pen.moveTo(a, b); pen.lineTo(c, d); pen.stroke();
    }
    pen.fillStyle = "#9fb3c8";
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "center"; pen.textBaseline = "middle";
    const [left, rightward, top, bottom] = view.edges;
    pen.fillText(left, 9, high / 2); pen.fillText(rightward, wide - 9, high / 2);
    pen.fillText(top, wide / 2, 9); pen.fillText(bottom, wide / 2, high - 9);
    pen.textAlign = "left"; pen.textBaseline = "bottom";
    pen.fillText(`${view.name} ${this.at[view.normal] + 1}/${this.shape[view.normal]}`, 8, high - 6);
    if (view === this.planes[this.large]) {
      pen.textAlign = "right";
      pen.fillText(`W ${this.width}  L ${this.level}   ${this.scan[this.index(this.at)]} HU`, wide - 8, high - 6);
    }
    if (this.brush && view.hover) {
      const radius = this.brush * Math.min(this.spacing[view.columns], this.spacing[view.rows]);
      pen.strokeStyle = "#ffd75e";
      pen.beginPath();
      pen.ellipse(view.hover[0], view.hover[1], (radius * frame.dx) / this.spacing[view.columns],
        (radius * frame.dy) / this.spacing[view.rows], 0, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  // The voxel under a point of a canvas, not clipped to the scan.
  voxel(view, x, y) {
    const frame = this.frame(view);
    const row = Math.floor((y - frame.y) / frame.dy);
    const ijk = [...this.at];
    ijk[view.columns] = Math.floor((x - frame.x) / frame.dx);
    ijk[view.rows] = view.up ? this.shape[view.rows] - 1 - row : row;
    return ijk;
  }

  wheel(view, event) {
    event.preventDefault();
    if (!this.scan) return;
    if (event.ctrlKey) this.zoom(view, event.deltaY < 0 ? 1.2 : 1 / 1.2, [event.offsetX, event.offsetY]);
    else this.step(event.deltaY < 0 ? 1 : -1, view);
  }

  zoom(view, by, point) {
    const [wide, high] = [view.box.clientWidth, view.box.clientHeight];
    const [x, y] = point || [wide / 2, high / 2];
    const zoom = Math.min(20, Math.max(1, view.zoom * by));
    const change = zoom / view.zoom;
    view.pan = zoom === 1 ? [0, 0] : [(x - wide / 2) * (1 - change) + view.pan[0] * change,
      (y - high / 2) * (1 - change) + view.pan[1] * change];
    view.zoom = zoom;
    this.draw();
  }

  press(view, event) {
    if (!this.scan) return;
    try { view.canvas.setPointerCapture(event.pointerId); } catch (error) { /* a scripted pointer has no capture */ }
    const kind = event.button === 2 ? "window" : event.button === 1 || event.shiftKey ? "pan"
      : this.brush ? "stroke" : "cross";
    view.drag = { kind, x: event.offsetX, y: event.offsetY, width: this.width, level: this.level, pan: [...view.pan] };
    if (kind === "cross") this.go(this.voxel(view, event.offsetX, event.offsetY));
    if (kind === "stroke" && this.on.stroke) this.on.stroke("begin", view, this.voxel(view, event.offsetX, event.offsetY));
  }

  move(view, event) {
    view.hover = [event.offsetX, event.offsetY];
    const drag = view.drag;
    if (!this.scan) return;
    if (!drag) { if (this.brush) this.draw(); return; }
    const [dx, dy] = [event.offsetX - drag.x, event.offsetY - drag.y];
    if (drag.kind === "window") {
      this.width = Math.max(1, Math.round(drag.width * Math.exp(dx / 200)));
      this.level = Math.round(drag.level - dy);
    } else if (drag.kind === "pan") view.pan = [drag.pan[0] + dx, drag.pan[1] + dy];
    else if (drag.kind === "cross") { this.go(this.voxel(view, event.offsetX, event.offsetY)); return; }
    else if (this.on.stroke) this.on.stroke("move", view, this.voxel(view, event.offsetX, event.offsetY));
    this.draw();
  }

  release(view, event) {
    const drag = view.drag;
    view.drag = null;
    if (!drag) return;
    if (drag.kind === "window") this.setWindow(this.width, this.level, "drag");
    if (drag.kind === "stroke" && this.on.stroke) this.on.stroke("end", view, this.voxel(view, event.offsetX, event.offsetY));
  }
}
