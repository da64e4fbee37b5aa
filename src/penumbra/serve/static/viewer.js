"use strict";
// Maps over a scan, each with its own opacity; colors that color-blind readers can tell apart.
const LAYERS = [
  { name: "segmentation", key: "1", opacity: 0.5 },
  { name: "epistemic", key: "2", opacity: 0, colormap: "plasma", colors: "#0d0887,#cc4778,#f0f921" },
  { name: "aleatoric", key: "3", opacity: 0, colormap: "viridis", colors: "#440154,#21918c,#fde725" },
  { name: "attention", key: "4", opacity: 0, colormap: "cividis", colors: "#00224e,#7d7c78,#fee838" },
];
// Okabe and Ito 2008
const COLORS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167],
  [213, 94, 0], [0, 114, 178]];
const SIGNS = { accept: "✓ accept", review: "! review", reject: "✕ reject" };
const WINDOW = { ct: [-160, 240] };
// One large axial picture, coronal above sagittal beside it.
const TILES = [
  { sliceType: 0, position: [0, 0, 0.64, 1] },
  { sliceType: 1, position: [0.645, 0, 0.355, 0.497] },
  { sliceType: 2, position: [0.645, 0.503, 0.355, 0.497] },
];
const at = (id) => document.getElementById(id);
const nv = new niivue.Niivue({
  backColor: [0.02, 0.03, 0.05, 1], crosshairColor: [0.31, 0.66, 0.88, 0.7], crosshairWidth: 1,
  crosshairWidthUnit: "px", crosshairGap: 12, fontMinPx: 15, isRadiologicalConvention: true,
  dragAndDropEnabled: false, isColorbar: false, logLevel: "silent", onLocationChange: locate,
});
let records = [], shown = null, chosen = 0, hidden = null, loading = Promise.resolve();

const address = (record, name, file) =>
  `${location.origin}/api/maps/${[record.case, name, file].map(encodeURIComponent).join("/")}`;
const css = (k) => `rgb(${COLORS[(k - 1) % COLORS.length]})`;
const ml = (volume) => (volume < 10 ? volume.toFixed(2) : volume.toFixed(0));

function labelColors(classes) {
  const rgb = classes.map((_, k) => (k ? COLORS[(k - 1) % COLORS.length] : [0, 0, 0]));
  return { R: rgb.map((c) => c[0]), G: rgb.map((c) => c[1]), B: rgb.map((c) => c[2]),
    A: rgb.map((_, k) => (k ? 255 : 0)), I: rgb.map((_, k) => k), labels: classes };
}

async function open(record) {
  document.body.dataset.state = "loading";
  at("message").hidden = true;
  shown = hidden = null;
  describe(record);
  const single = (name) => (record.files[name] || []).filter((file) => file.endsWith(".nii.gz"));
  const present = LAYERS.filter((layer) => single(layer.name).length === 1);
  const image = single("image");
  if (!image.length) return fail("This case has no volume to show; its one-page summary has all.");
  const [low, high] = WINDOW[record.task.modality] || [];
  const volumes = [{ url: address(record, "image", image[0]), name: image[0], colormap: "gray",
    cal_min: low, cal_max: high }];
  for (const layer of present) {
    const file = single(layer.name)[0];
    volumes.push({ url: address(record, layer.name, file), name: file, opacity: layer.opacity,
      colormap: layer.colormap || "gray", cal_min: 0 });
  }
  await nv.loadVolumes(volumes);
  shown = { record, layers: present };
  present.forEach((layer, k) => {
    const volume = nv.volumes[k + 1];
    if (layer.name === "segmentation") volume.setColormapLabel(labelColors(record.task.classes));
    else fade(volume);
  });
  controls(record, present);
  nv.updateGLVolume();
  nv.scene.crosshairPos = fullest(present);
  nv.createOnLocationChange();
  nv.drawScene();
  document.body.dataset.state = "ready";
}

// Colors run from 0 to the top; the lower half fades out, so that the scan shows through calm places.
function fade(volume) {
  volume.cal_max = volume.robust_max || volume.global_max || 1;
  volume.cal_min = volume.cal_max / 2;
  volume.colormapType = 2;
}

// Where to look first: on the axial slice with most segmented voxels, the one nearest their middle.
function fullest(layers) {
  const k = layers.findIndex((layer) => layer.name === "segmentation");
  if (k < 0) return [0.5, 0.5, 0.5];
  const volume = nv.volumes[k + 1], labels = volume.img2RAS(), [, nx, ny, nz] = volume.dimsRAS;
  let most = [];
  for (let z = 0; z < nz; z++) {
    const found = [];
    for (let y = 0, i = z * nx * ny; y < ny; y++) {
      for (let x = 0; x < nx; x++, i++) if (labels[i]) found.push([x, y, z]);
    }
    if (found.length > most.length) most = found;
  }
  if (!most.length) return [0.5, 0.5, 0.5];
  const middle = [0, 1].map((axis) => most.reduce((sum, v) => sum + v[axis], 0) / most.length);
  const off = (v) => Math.hypot(v[0] - middle[0], v[1] - middle[1]);
  const [x, y, z] = most.reduce((best, v) => (off(v) < off(best) ? v : best));
  return [(x + 0.5) / nx, (y + 0.5) / ny, (z + 0.5) / nz];
}

function describe(record) {
  const verdict = at("verdict");
  verdict.textContent = SIGNS[record.decision.verdict];
  verdict.className = record.decision.verdict;
  at("reasons").replaceChildren(...record.decision.reasons.map((text) => element("li", text)));
  at("trust").textContent = (record.trust || []).join("\n");
  at("page").href = `/api/pages/${encodeURIComponent(record.case)}`;
  const volumes = Object.entries(record.volumes_ml || {});
  at("measured").hidden = volumes.length === 0;
  at("volumes").replaceChildren(...volumes.map(([name, v]) => {
    const title = element("td"), figures = element("td", `${ml(v.mean)} ml`);
    const k = (record.task.regions[name] || []).length === 1 ? record.task.regions[name][0] : 0;
    if (k) title.append(swatch(k));
    title.append(name);
    for (const [kind, range] of [["credible", v], ["conformal", v.conformal]]) {
      if (range) figures.append(element("small",
        `${ml(range.low)} to ${ml(range.high)} · ${Math.round(100 * range.level)} % ${kind}`));
    }
    return row(title, figures);
  }));
  const findings = Object.entries(record.findings || {});
  at("found").hidden = findings.length === 0;
  at("findings").replaceChildren(...findings.map(([name, f]) => row(element("td", name),
    element("td", `${f.probability.toFixed(2)} ${f.present ? "present" : "absent"}`))));
}

function controls(record, layers) {
  at("layers").replaceChildren(...layers.map((layer, k) => {
    const box = element("div"), label = element("label"), slider = element("input");
    const share = element("span");
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01, value: layer.opacity });
    slider.id = `opacity-${layer.name}`;
    label.htmlFor = slider.id;
    label.append(element("span", `${layer.key} ${layer.name}`), share);
    const say = () => {
      const here = layer.here === undefined ? "" : `${layer.here} here · `;
      share.textContent = `${here}${Math.round(100 * layer.opacity)} %`;
    };
    layer.say = say;
    slider.addEventListener("input", () => {
      layer.opacity = Number(slider.value);
      hidden = null;
      say();
      nv.setOpacity(k + 1, layer.opacity);
    });
    slider.addEventListener("focus", () => choose(k));
    box.className = "layer";
    box.append(label, slider, layer.colors ? scale(layer, nv.volumes[k + 1]) : legend(record));
    say();
    return box;
  }));
  choose(Math.max(0, Math.min(chosen, layers.length - 1)));
}

function scale(layer, volume) {
  const box = element("div"), bar = element("div"), ends = element("div");
  bar.className = "scale";
  bar.style.background = `linear-gradient(90deg, ${layer.colors})`;
  ends.className = "ends";
  ends.append(element("span", "0"), element("span", volume.cal_max.toPrecision(2)));
  box.append(bar, ends);
  return box;
}

function legend(record) {
  const box = element("div");
  box.className = "legend";
  box.append(...record.task.classes.slice(1).map((name, k) => {
    const entry = element("span");
    entry.append(swatch(k + 1), name);
    return entry;
  }));
  return box;
}

function swatch(k) {
  const made = element("i");
  made.style.background = css(k);
  return made;
}

// The values under the crosshair, beside the sliders of their layers.
function locate(where) {
  if (!shown) return;
  const [x, y, z] = where.mm, values = where.values.map((each) => each.value);
  at("place").textContent = `${x.toFixed(1)}, ${y.toFixed(1)}, ${z.toFixed(1)} mm (right, ` +
    `anterior, superior): ${Number(values[0]).toPrecision(4)}`;
  shown.layers.forEach((layer, k) => {
    const value = values[k + 1];
    layer.here = layer.name === "segmentation" ? shown.record.task.classes[Math.round(value)]
      : Number(value).toPrecision(2);
    layer.say();
  });
}

function choose(k) {
  chosen = k;
  document.querySelectorAll(".layer").forEach((box, i) => box.classList.toggle("chosen", i === k));
}

function set(k, value) {
  const slider = document.querySelectorAll(".layer input")[k];
  if (!slider) return;
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
}

function toggle() {
  const now = shown.layers.map((layer) => layer.opacity), before = hidden;
  now.forEach((_, k) => set(k, before ? before[k] : 0));
  hidden = before ? null : now;
}

function turn(step) {
  const select = at("case"), next = select.selectedIndex + step;
  if (next < 0 || next >= records.length) return;
  select.selectedIndex = next;
  select.dispatchEvent(new Event("change"));
}

document.addEventListener("keydown", (event) => {
  if (["SELECT", "INPUT"].includes(event.target.tagName) && event.key.startsWith("Arrow")) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // The patient's right lies on the left of the picture.
  const moves = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1] };
  if (event.key === "n") turn(1);
  else if (event.key === "p") turn(-1);
  else if (!shown) return;
  else if (moves[event.key]) nv.moveCrosshairInVox(...moves[event.key]);
  else if (event.key === "0") toggle();
  else if (event.key >= "1" && event.key <= "4") chooseKey(event.key);
  else if (event.key === "+" || event.key === "=") set(chosen, shown.layers[chosen].opacity + 0.1);
  else if (event.key === "-") set(chosen, shown.layers[chosen].opacity - 0.1);
  else return;
  event.preventDefault();
});

function chooseKey(key) {
  const k = shown.layers.findIndex((layer) => layer.key === key);
  if (k >= 0) choose(k);
}

function row(...cells) {
  const made = element("tr");
  made.append(...cells);
  return made;
}

function element(tag, text) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return made;
}

function fail(text) {
  at("message").textContent = text;
  at("message").hidden = false;
  document.body.dataset.state = "failed";
}

async function start() {
  await nv.attachToCanvas(at("view"));
  nv.setInterpolation(true);
  nv.setCustomLayout(TILES);
  records = await (await fetch("/api/cases")).json();
  if (!records.length) return fail("No predictions in this folder yet.");
  at("case").replaceChildren(...records.map((r) => element("option", `${r.case} · ${r.decision.verdict}`)));
  at("case").addEventListener("change", () => {
    const record = records[at("case").selectedIndex];
    loading = loading.then(() => open(record)).catch((error) => fail(String(error)));
  });
  await open(records[0]);
}
start().catch((error) => fail(String(error)));
