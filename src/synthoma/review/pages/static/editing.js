// Changes to the labels: brush, eraser, threshold in a ball, islands. Each gives the voxels it changed, to be undone.
"use strict";

// What was changed since it began: voxel -> label before.
export class Change {
  constructor(labels) { this.labels = labels; this.before = new Map(); }
  set(at, label) {
    if (this.labels[at] === label) return;
    if (!this.before.has(at)) this.before.set(at, this.labels[at]);
    this.labels[at] = label;
  }
  // The box of all changed voxels.
  box(shape) {
    const [low, high] = [[...shape], [-1, -1, -1]];
    for (const at of this.before.keys()) {
      const ijk = [at % shape[0], Math.floor(at / shape[0]) % shape[1], Math.floor(at / (shape[0] * shape[1]))];
      ijk.forEach((value, axis) => {
        low[axis] = Math.min(low[axis], value);
        high[axis] = Math.max(high[axis], value);
      });
    }
    return high[0] < 0 ? [0, 0, 0, 0, 0, 0] : [...low, ...low.map((value, axis) => high[axis] - value + 1)];
  }
  undo() { for (const [at, label] of this.before) this.labels[at] = label; }
  get size() { return this.before.size; }
}

const inside = (ijk, shape) => ijk.every((value, axis) => value >= 0 && value < shape[axis]);

// Every voxel of a disc in a plane (axes columns, rows) around a voxel; radius in mm.
export function disc(viewer, view, center, radius, each) {
  const [a, b] = [view.columns, view.rows];
  const reach = [a, b].map((axis) => Math.ceil(radius / viewer.spacing[axis]));
  for (let u = -reach[0]; u <= reach[0]; u++) {
    for (let v = -reach[1]; v <= reach[1]; v++) {
      if ((u * viewer.spacing[a]) ** 2 + (v * viewer.spacing[b]) ** 2 > radius ** 2) continue;
      const ijk = [...center];
      ijk[a] += u;
      ijk[b] += v;
      if (inside(ijk, viewer.shape)) each(viewer.index(ijk));
    }
  }
}

// A line of discs from one voxel to another.
export function line(viewer, view, from, to, radius, each) {
  const steps = Math.max(1, ...from.map((value, axis) => Math.abs(to[axis] - value)));
  for (let step = 1; step <= steps; step++) {
    disc(viewer, view, from.map((value, axis) => Math.round(value + ((to[axis] - value) * step) / steps)), radius, each);
  }
}

// Every voxel of a ball around a voxel whose HU lie between low and high.
export function ball(viewer, center, radius, low, high, each) {
  const reach = viewer.spacing.map((mm) => Math.ceil(radius / mm));
  for (let k = -reach[2]; k <= reach[2]; k++) {
    for (let j = -reach[1]; j <= reach[1]; j++) {
      for (let i = -reach[0]; i <= reach[0]; i++) {
        const mm = (i * viewer.spacing[0]) ** 2 + (j * viewer.spacing[1]) ** 2 + (k * viewer.spacing[2]) ** 2;
        const ijk = [center[0] + i, center[1] + j, center[2] + k];
        if (mm > radius ** 2 || !inside(ijk, viewer.shape)) continue;
        const at = viewer.index(ijk);
        if (viewer.scan[at] >= low && viewer.scan[at] <= high) each(at);
      }
    }
  }
}

// Every voxel of the 26-connected part of a label that holds a voxel.
export function island(viewer, start, each) {
  const label = viewer.labels[viewer.index(start)];
  if (!label) return;
  const seen = new Set([viewer.index(start)]);
  const open = [start];
  while (open.length) {
    const [i, j, k] = open.pop();
    for (let n = 0; n < 27; n++) {
      const ijk = [i + (n % 3) - 1, j + (Math.floor(n / 3) % 3) - 1, k + Math.floor(n / 9) - 1];
      if (!inside(ijk, viewer.shape)) continue;
      const at = viewer.index(ijk);
      if (viewer.labels[at] !== label || seen.has(at)) continue;
      seen.add(at);
      open.push(ijk);
    }
  }
  for (const at of seen) each(at);
}

// label -> {voxels, at}: how many voxels it has, and a voxel of it in its largest axial slice.
export function measure(labels, shape, box) {
  const found = new Map();
  const [i0, j0, k0, ni, nj, nk] = box;
  for (let k = k0; k < k0 + nk; k++) {
    const slice = new Map();
    for (let j = j0; j < j0 + nj; j++) {
      let at = i0 + shape[0] * (j + shape[1] * k);
      for (let i = i0; i < i0 + ni; i++, at++) {
        const label = labels[at];
        if (!label) continue;
        const sums = slice.get(label) || [0, 0, 0];
        slice.set(label, [sums[0] + 1, sums[1] + i, sums[2] + j]);
      }
    }
    for (const [label, [count, i, j]] of slice) {
      const known = found.get(label) || { voxels: 0, most: 0, at: null };
      known.voxels += count;
      if (count > known.most) { known.most = count; known.at = [Math.round(i / count), Math.round(j / count), k]; }
      found.set(label, known);
    }
  }
  return found;
}
