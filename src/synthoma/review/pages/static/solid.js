// The 3-D view: NiiVue renders the scan, made coarser to fit, with the labels in it.
"use strict";

const MOST = 160; // voxels along an axis
let loading = null;

function load() {
  if (!loading) {
    loading = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = "/static/niivue.umd.js";
      script.onload = resolve;
      script.onerror = () => reject(new Error("The 3-D view could not be loaded."));
      document.head.append(script);
    });
  }
  return loading;
}

// A NIfTI-1 file in memory; axes point to the left, to the back and to the head.
function nifti(data, shape, spacing, type, bits, range) {
  const bytes = new ArrayBuffer(352 + data.byteLength);
  const head = new DataView(bytes);
  head.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((n, at) => head.setInt16(40 + 2 * at, n, true));
  head.setInt16(70, type, true);
  head.setInt16(72, bits, true);
  [1, ...spacing, 1, 1, 1, 1].forEach((n, at) => head.setFloat32(76 + 4 * at, n, true));
  head.setFloat32(108, 352, true);
  head.setFloat32(112, 1, true);
  head.setFloat32(124, range[1], true);
  head.setFloat32(128, range[0], true);
  head.setUint8(123, 2);
  head.setInt16(254, 1, true);
  const rows = [[-spacing[0], 0, 0, 0], [0, -spacing[1], 0, 0], [0, 0, spacing[2], 0]];
  rows.forEach((row, n) => row.forEach((value, at) => head.setFloat32(280 + 16 * n + 4 * at, value, true)));
  [0x6e, 0x2b, 0x31, 0].forEach((value, at) => head.setUint8(344 + at, value));
  new Uint8Array(bytes, 352).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return bytes;
}

function coarser(data, shape, steps) {
  const size = shape.map((n, axis) => Math.ceil(n / steps[axis]));
  const result = new data.constructor(size[0] * size[1] * size[2]);
  let to = 0;
  for (let k = 0; k < shape[2]; k += steps[2]) {
    for (let j = 0; j < shape[1]; j += steps[1]) {
      const from = shape[0] * (j + shape[1] * k);
      for (let i = 0; i < shape[0]; i += steps[0]) result[to++] = data[from + i];
    }
  }
  return [result, size];
}

export async function showSolid(dialog, viewer) {
  const canvas = dialog.querySelector("canvas");
  const sentence = dialog.querySelector("p");
  dialog.showModal();
  if (!document.createElement("canvas").getContext("webgl2")) {
    sentence.textContent = "This browser has no WebGL 2, which the 3-D view needs. The three planes work without it.";
    return;
  }
  sentence.textContent = "drag to turn, wheel to zoom; made coarser where the scan is large";
  await load();
  const steps = viewer.shape.map((n) => Math.ceil(n / MOST));
  const spacing = viewer.spacing.map((mm, axis) => mm * steps[axis]);
  const [scan, shape] = coarser(viewer.scan, viewer.shape, steps);
  const { Niivue, NVImage, SLICE_TYPE } = window.niivue;
  if (!dialog.viewer) {
    dialog.viewer = new Niivue({ loadingText: "", backColor: [0.05, 0.06, 0.07, 1], show3Dcrosshair: false });
    await dialog.viewer.attachToCanvas(canvas);
  }
  const solid = dialog.viewer;
  while (solid.volumes.length) solid.removeVolumeByIndex(0);
  const ct = await NVImage.loadFromUrl({ url: nifti(scan, shape, spacing, 4, 16, [120, 600]), name: "scan.nii" });
  solid.addVolume(ct);
  if (viewer.labels && viewer.labels.some((label) => label)) {
    const [labels] = coarser(viewer.labels, viewer.shape, steps);
    const marked = labels.map((label) => (label ? 1 : 0));
    const mask = await NVImage.loadFromUrl({
      url: nifti(marked, shape, spacing, 2, 8, [0, 1]), name: "mask.nii", colormap: "red", opacity: 0.9,
    });
    solid.addVolume(mask);
  }
  solid.setSliceType(SLICE_TYPE.RENDER);
  solid.setRadiologicalConvention(true);
  solid.setRenderAzimuthElevation(0, 10); // from the front
  solid.drawScene();
  dialog.dataset.shown = "yes";
}
