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
const at = (id) => document.getElementById(id);
const nv = new niivue.Niivue({
  backColor: [0.02, 0.03, 0.05, 1], show3Dcrosshair: true, isRadiologicalConvention: true,
  dragAndDropEnabled: false, isColorbar: false, logLevel: "silent",
  onLocationChange: (where) => { at("place").textContent = where.string; },
});
let records = [], shown = null, chosen = 0, loading = Promise.resolve();

const address = (record, name, file) =>
  `${location.origin}/api/maps/${[record.case, name, file].map(encodeURIComponent).join("/")}`;

function labelColors(classes) {
  const rgb = classes.map((_, k) => (k ? COLORS[(k - 1) % COLORS.length] : [0, 0, 0]));
  return { R: rgb.map((c) => c[0]), G: rgb.map((c) => c[1]), B: rgb.map((c) => c[2]),
    A: rgb.map((_, k) => (k ? 255 : 0)), I: rgb.map((_, k) => k), labels: classes };
}

async function open(record) {
  document.body.dataset.state = "loading";
  at("message").hidden = true;
  describe(record);
  const present = LAYERS.filter((layer) => (record.files[layer.name] || []).length === 1 &&
    record.files[layer.name][0].endsWith(".nii.gz"));
  const image = (record.files.image || []).filter((file) => file.endsWith(".nii.gz"));
  if (!image.length) return fail("This case has no volume to show; open its page instead.");
  const volumes = [{ url: address(record, "image", image[0]), name: image[0], colormap: "gray" }];
  for (const layer of present) {
    const file = record.files[layer.name][0];
    volumes.push({ url: address(record, layer.name, file), name: file, opacity: layer.opacity,
      colormap: layer.colormap || "gray", cal_min: 0 });
  }
  await nv.loadVolumes(volumes);
  shown = { record, layers: present };
  present.forEach((layer, k) => {
    const volume = nv.volumes[k + 1];
    if (layer.name === "segmentation") volume.setColormapLabel(labelColors(record.task.classes));
    else { volume.cal_min = 0; volume.cal_max = volume.robust_max || volume.global_max; }
  });
  nv.updateGLVolume();
  nv.setSliceType(nv.sliceTypeMultiplanar);
  controls(present);
  document.body.dataset.state = "ready";
}

function describe(record) {
  const verdict = at("verdict");
  verdict.textContent = record.decision.verdict;
  verdict.className = record.decision.verdict;
  at("reasons").replaceChildren(...record.decision.reasons.map((text) => element("li", text)));
  const volumes = Object.entries(record.volumes_ml || {});
  at("measured").hidden = volumes.length === 0;
  at("volumes").replaceChildren(...volumes.map(([name, v]) => {
    const row = element("tr");
    row.append(element("td", name),
      element("td", `${v.mean.toFixed(1)} ml (${v.low.toFixed(1)} to ${v.high.toFixed(1)})`));
    row.title = `${Math.round(100 * v.level)} % credible interval of ${v.draws} draws`;
    return row;
  }));
}

function controls(layers) {
  at("layers").replaceChildren(...layers.map((layer, k) => {
    const box = element("div"), label = element("label"), slider = element("input");
    const share = element("span", `${Math.round(100 * layer.opacity)} %`);
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01, value: layer.opacity });
    slider.id = `opacity-${layer.name}`;
    label.htmlFor = slider.id;
    label.append(element("span", `${layer.key} ${layer.name}`), share);
    slider.addEventListener("input", () => {
      layer.opacity = Number(slider.value);
      share.textContent = `${Math.round(100 * layer.opacity)} %`;
      nv.setOpacity(k + 1, layer.opacity);
    });
    slider.addEventListener("focus", () => choose(k));
    box.className = "layer";
    box.append(label, slider);
    if (layer.colors) {
      const scale = element("div");
      scale.className = "scale";
      scale.style.background = `linear-gradient(90deg, ${layer.colors})`;
      scale.title = `0 to ${nv.volumes[k + 1].cal_max.toPrecision(2)}`;
      box.append(scale);
    }
    return box;
  }));
  choose(Math.min(chosen, layers.length - 1));
}

function choose(k) {
  chosen = k;
  document.querySelectorAll(".layer").forEach((box, i) => box.classList.toggle("chosen", i === k));
}

function nudge(step) {
  const slider = document.querySelectorAll(".layer input")[chosen];
  if (!slider) return;
  slider.value = Number(slider.value) + step;
  slider.dispatchEvent(new Event("input"));
}

function turn(step) {
  const select = at("case");
  const next = select.selectedIndex + step;
  if (next < 0 || next >= records.length) return;
  select.selectedIndex = next;
  select.dispatchEvent(new Event("change"));
}

document.addEventListener("keydown", (event) => {
  if (["SELECT", "INPUT"].includes(event.target.tagName) && event.key.startsWith("Arrow")) return;
  const moves = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1] };
  if (moves[event.key] && shown) nv.moveCrosshairInVox(...moves[event.key]);
  else if (event.key >= "1" && event.key <= "4" && shown && shown.layers[event.key - 1]) choose(event.key - 1);
  else if (event.key === "+" || event.key === "=") nudge(0.1);
  else if (event.key === "-") nudge(-0.1);
  else if (event.key === "n") turn(1);
  else if (event.key === "p") turn(-1);
  else return;
  event.preventDefault();
});

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
