// What all parts of the page share: building elements, formatting figures, loading clips.
// Names of files and models are data: they only ever become text nodes, never markup.
"use strict";

const wfReport = {};

/** Make an element. `attributes`: `on…` are listeners, `style` an object, the rest attributes. */
function h(tag, attributes, ...children) {
  const svg = ["svg", "g", "rect", "circle", "line", "path", "text", "title"].includes(tag);
  const element = svg && tag !== "title"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : svg ? document.createElementNS("http://www.w3.org/2000/svg", "title")
      : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") {
      for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    } else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** How figures are shown, and which way is better: 1 higher, -1 lower, 0 neither. */
const METRICS = {
  psnr: { unit: "dB", digits: 2, better: 1 },
  ssim: { digits: 4, better: 1 },
  ms_ssim: { digits: 4, better: 1 },
  lpips: { digits: 4, better: -1 },
  flicker_psnr: { unit: "dB", digits: 2, better: 1 },
  fid: { label: "rFID", digits: 3, better: -1 },
  fvd: { label: "rFVD", digits: 3, better: -1 },
  frames_per_second: { label: "frames/s", digits: 1, better: 1 },
  latent_bytes: { label: "latents", better: 0 },
};

function metricLabel(page, name) {
  return METRICS[name].label || page.labels[name] || name;
}

/** A score for people; "identical" where nothing was lost. */
function formatMetric(name, value) {
  if (value === "inf") return "identical";
  if (!isNumber(value)) return "–";
  return name === "latent_bytes" ? formatBytes(value) : value.toFixed(METRICS[name].digits);
}

function formatBytes(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (bytes >= 1024 && place < units.length - 1) { bytes /= 1024; place += 1; }
  return `${bytes.toFixed(place && bytes < 100 ? 1 : 0)} ${units[place]}`;
}

/** A value to sort by: infinity for identical, null for what is not there. */
function sortable(value) {
  if (value === "inf") return Infinity;
  return isNumber(value) ? value : null;
}

/** The colour of a model, the same everywhere on the page. */
const modelColour = (number) => `var(--model-${number % 8})`;

function dot(number) {
  return h("span", { class: "dot", style: { background: modelColour(number) }, "aria-hidden": "true" });
}

/** Load the script of a clip when it is looked at, once. */
const clipDetails = new Map();
const waitingClips = new Map();

wfReport.clip = (id, models) => {
  clipDetails.set(id, models);
  const waiting = waitingClips.get(id);
  if (waiting) waiting(models);
};

function loadClip(id) {
  if (clipDetails.has(id)) return Promise.resolve(clipDetails.get(id));
  return new Promise((resolve, reject) => {
    waitingClips.set(id, resolve);
    const script = h("script", { src: `clips/${id}/clip.js` });
    script.addEventListener("error", () => reject(new Error(`clips/${id}/clip.js is missing`)));
    document.head.append(script);
  });
}
