// One clip: original and reconstruction under a slider, in step, frame by frame.
"use strict";

/** What stays as it was when another clip is opened. */
const view = { left: "original", right: "0", mode: "slider", error: false, split: 50, zoom: "fit", flipped: false };

const MODES = [["slider", "Slider"], ["side", "Side by side"], ["flip", "Flip"]];
const ZOOMS = [["fit", "Fit"], ["1", "100 %"], ["2", "200 %"], ["4", "400 %"]];

/** A picture or a video that can be put at a frame. */
function makeLayer(source, media, fps) {
  const still = media.frames === 1;
  const element = h(still ? "img" : "video", still ? { src: source, alt: "" }
    : { muted: true, playsinline: true, preload: "auto", disablepictureinpicture: true });
  if (!still) { element.muted = true; setVideo(element, source); }
  element.addEventListener("error", () => { 
    const stage = element.closest(".stage");
    if (stage) stage.dataset.broken = "yes";
  });
  let time = 0;
  const set = () => { if (Math.abs(element.currentTime - time) > 1e-4) element.currentTime = time; };
  // The event may come after a seek that found the metadata there: what is wanted last counts.
  if (!still) element.addEventListener("loadedmetadata", set, { once: true });
  const seek = (frame) => {
    if (still) return;
    // The middle of the frame: its ends may round to a neighbour.
    time = (Math.min(frame, media.frames - 1) + 0.5) / fps;
    if (element.readyState >= 1) set();
  };
  return { element, seek, still };
}

const loadedVideos = [];

/** Load a video so that it can be sought: many web servers send whole files only. */
function setVideo(element, source) {
  if (location.protocol === "file:") { element.src = source; return; }
  fetch(source).then((answer) => (answer.ok ? answer.blob() : Promise.reject(new Error(answer.status))))
    .then((blob) => {
      element.src = URL.createObjectURL(blob);
      loadedVideos.push(element.src);
    }).catch(() => element.dispatchEvent(new Event("error")));
}

function makeViewer(page, file, details) {
  const models = page.models.map((_, number) => number).filter((number) => details[number]);
  const fps = file.fps || 25;
  const shown = Math.min(file.frames, file.original.frames);
  const state = { frame: 0, playing: false };
  const at = (key, fallback) => (key === "original" || models.includes(Number(key)) ? key : fallback);
  view.right = at(view.right, String(models[0]));
  view.left = at(view.left, "original");
  let layers = [];

  const stage = h("div", { class: "stage" });
  const scroller = h("div", { class: "scroller" }, stage);
  const status = h("output", { class: "status", "aria-live": "off" });
  const scrubber = h("input", { type: "range", min: 0, max: shown - 1, value: 0, step: 1,
    class: "scrubber", "aria-label": "frame", oninput: () => show(Number(scrubber.value)) });
  const play = h("button", { type: "button", class: "play", onclick: () => toggle() }, "Play");
  const curves = makeCurves(page, details, file.frames, (frame) => show(frame));
  const handle = h("div", { class: "handle", role: "slider", tabindex: 0, "aria-label": "divider",
    "aria-valuemin": 0, "aria-valuemax": 100, onkeydown: moveHandle });

  const folder = `clips/${file.id}/`;
  const nameOf = (key) => (key === "original" ? "original" : page.models[Number(key)].name);

  /** The picture of one side; the right one may be the error of the model that is looked at. */
  function sourceOf(side) {
    const key = view[side];
    if (side === "right" && view.error) {
      const model = key === "original" ? (view.left === "original" ? models[0] : Number(view.left)) : Number(key);
      return { media: details[model].error, label: `luminance error, ${nameOf(String(model))}`, key: `e${model}` };
    }
    const media = key === "original" ? file.original : details[Number(key)].reconstruction;
    return { media, label: nameOf(key), key };
  }

  function build() {
    pause();
    delete stage.dataset.broken;
    const sides = ["left", "right"].map((side) => ({ side, ...sourceOf(side) }));
    const kept = new Map(layers.map((layer) => [`${layer.side} ${layer.key}`, layer]));
    layers = sides.map(({ side, media, label, key }) => {
      const old = kept.get(`${side} ${key}`);
      const layer = old || { ...makeLayer(folder + media.name, media, fps), side, key };
      layer.box = h("div", { class: `layer ${side}` }, layer.element,
        h("span", { class: "label" }, label));
      return layer;
    });
    stage.replaceChildren(...layers.map((layer) => layer.box), view.mode === "slider" ? handle : "");
    layout();
    show(state.frame);
  }

  function layout() {
    const { width, height } = file.original;
    stage.dataset.mode = view.mode;
    stage.dataset.flipped = view.flipped ? "right" : "left";
    stage.style.setProperty("--aspect", `${width} / ${height}`);
    const fixed = `${width * Number(view.zoom)}px`;
    // Portrait pictures must not push the controls off the screen.
    stage.style.setProperty("--picture", view.zoom === "fit" ? `min(100%, ${(72 * width) / height}vh, ${Math.max(480, width * 2)}px)` : fixed);
    scroller.dataset.zoom = view.zoom;
    setSplit(view.split);
    for (const [key, button] of Object.entries(modeButtons)) button.setAttribute("aria-pressed", key === view.mode);
    errorButton.setAttribute("aria-pressed", view.error);
    scale.hidden = !view.error;
  }

  function setSplit(percent) {
    view.split = Math.max(0, Math.min(100, percent));
    stage.style.setProperty("--split", `${view.split}%`);
    handle.setAttribute("aria-valuenow", Math.round(view.split));
  }

  function moveHandle(event) {
    const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    setSplit(view.split + step);
  }

  function drag(event) {
    if (view.mode !== "slider" || event.button !== 0) return;
    const follow = (move) => {
      const box = stage.getBoundingClientRect();
      setSplit(((move.clientX - box.left) / box.width) * 100);
    };
    event.preventDefault();
    follow(event);
    stage.setPointerCapture(event.pointerId);
    stage.addEventListener("pointermove", follow);
    const stop = () => stage.removeEventListener("pointermove", follow);
    stage.addEventListener("pointerup", stop, { once: true });
    stage.addEventListener("pointercancel", stop, { once: true });
  }
  stage.addEventListener("pointerdown", drag);
  stage.addEventListener("click", () => { if (view.mode === "flip") flip(); });

  function show(frame) {
    pause();
    state.frame = Math.max(0, Math.min(shown - 1, frame));
    for (const layer of layers) layer.seek(state.frame);
    tell();
  }

  function tell() {
    scrubber.value = state.frame;
    curves.move(state.frame);
    const scores = models.map((model) => {
      const values = details[model].curves;
      return [h("span", { class: "score" }, models.length > 1 && dot(model),
        `${formatMetric("psnr", values.psnr[state.frame])}${values.psnr[state.frame] === "inf" ? "" : " dB"}`)];
    });
    const time = file.frames > 1 && file.fps ? ` · ${(state.frame / file.fps).toFixed(2)} s` : "";
    const place = file.frames > 1 ? `frame ${state.frame} of ${file.frames - 1}${time}` : "still image";
    status.replaceChildren(h("span", { class: "place" }, place), h("span", { class: "muted" }, metricLabel(page, "psnr")), ...scores.flat());
    status.dataset.frame = state.frame;
  }

  function pause() {
    if (!state.playing) return;
    state.playing = false;
    play.textContent = "Play";
    for (const layer of layers) {
      if (layer.still) continue;
      layer.element.pause();
      layer.seek(state.frame);
    }
  }

  function toggle() {
    if (state.playing) { pause(); return; }
    if (layers.every((layer) => layer.still)) return;
    if (state.frame >= shown - 1) show(0);
    state.playing = true;
    play.textContent = "Pause";
    for (const layer of layers) layer.element.play().catch(() => pause());
    requestAnimationFrame(follow);
  }

  /** Keep the sides in step while they play: the left one leads. */
  function follow() {
    if (!state.playing) return;
    const [lead, other] = layers.map((layer) => layer.element);
    const frame = Math.min(shown - 1, Math.floor(lead.currentTime * fps + 1e-3));
    if (Math.abs(lead.currentTime - other.currentTime) > 1 / fps) other.currentTime = lead.currentTime;
    if (frame !== state.frame) { state.frame = frame; tell(); }
    if (lead.ended) { pause(); return; }
    requestAnimationFrame(follow);
  }

  function flip() { view.flipped = !view.flipped; layout(); }
  function setMode(mode) { view.mode = mode; build(); }
  function setError() { view.error = !view.error; build(); }

  const select = (side) => h("select", { "aria-label": `${side} side`,
    onchange: (event) => { view[side] = event.target.value; build(); } },
  ["original", ...models.map(String)].map((key) => h("option", { value: key, selected: view[side] === key }, nameOf(key))));
  const modeButtons = Object.fromEntries(MODES.map(([key, label]) =>
    [key, h("button", { type: "button", onclick: () => setMode(key) }, label)]));
  const errorButton = h("button", { type: "button", class: "error-toggle", onclick: setError }, "Error");
  const zoom = h("select", { "aria-label": "zoom", onchange: (event) => { view.zoom = event.target.value; layout(); } },
    ZOOMS.map(([key, label]) => h("option", { value: key, selected: view.zoom === key }, label)));
  const scale = h("div", { class: "scale", hidden: true },
    "luminance error", h("span", {}, "0"), h("span", { class: "ramp" }), h("span", {}, `${page.error_scale}+ of 255`));
  const several = models.length > 1;

  const element = h("section", { class: "viewer", "aria-label": "clip" },
    h("div", { class: "bar" },
      several && h("span", { class: "pick" }, select("left"), h("span", { class: "muted" }, "against"), select("right")),
      h("span", { class: "segments", role: "group", "aria-label": "view" }, Object.values(modeButtons)),
      errorButton, zoom, scale),
    scroller,
    file.frames > 1 && h("div", { class: "transport" },
      h("button", { type: "button", "aria-label": "previous frame", onclick: () => show(state.frame - 1) }, "‹"),
      play,
      h("button", { type: "button", "aria-label": "next frame", onclick: () => show(state.frame + 1) }, "›"),
      scrubber),
    status,
    shown < file.frames && h("p", { class: "note" }, `The video holds the first ${shown} of ${file.frames} frames; scores are of all.`),
    h("p", { class: "keys" }, file.frames > 1 && [key("←"), key("→"), " frame ", key("Shift"), " 10 ", key("Space"), " play "],
      key("E"), " error ", key("S"), " view ", key("F"), " flip ", key("["), key("]"), " divider"),
    file.frames > 1 && curves.element,
    makeWorst(page, file, details, models, show));
  build();

  const keys = {
    ArrowLeft: (event) => show(state.frame - (event.shiftKey ? 10 : 1)),
    ArrowRight: (event) => show(state.frame + (event.shiftKey ? 10 : 1)),
    Home: () => show(0),
    End: () => show(shown - 1),
    " ": toggle,
    e: setError,
    s: () => setMode(MODES[(MODES.findIndex(([each]) => each === view.mode) + 1) % MODES.length][0]),
    f: () => { if (view.mode !== "flip") setMode("flip"); flip(); },
    "[": () => setSplit(view.split - 5),
    "]": () => setSplit(view.split + 5),
  };
  return {
    element,
    /** Act on a key; true if it has a meaning here. */
    press(event) {
      const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (action) action(event);
      return Boolean(action);
    },
    /** Stop playing, and let go of the videos. */
    stop() {
      pause();
      loadedVideos.splice(0).forEach((url) => URL.revokeObjectURL(url));
    },
  };
}

const key = (name) => h("kbd", {}, name);

/** The worst frames as zoomed crops, a row a model. */
function makeWorst(page, file, details, models, show) {
  const folder = `clips/${file.id}/`;
  const rows = models.filter((model) => details[model].worst.length).map((model) => h("div", { class: "worst-row" },
    models.length > 1 && h("h4", {}, dot(model), page.models[model].name),
    h("div", { class: "cards" }, details[model].worst.map((worst) => h("button", {
      type: "button", class: "card", title: `go to frame ${worst.index}`, onclick: () => {
        show(worst.index);
        document.querySelector(".viewer").scrollIntoView({ block: "start" });
      },
    },
    h("span", { class: "crops" }, ["original", "reconstruction", "error"].map((role) =>
      h("img", { src: folder + worst[role], alt: role, title: role, loading: "lazy" }))),
    h("span", { class: "caption" }, file.frames > 1 && h("b", {}, `frame ${worst.index}`),
      ` ${formatMetric("psnr", worst.psnr)} dB`,
      h("span", { class: "muted" }, ` at x ${worst.box.left}, y ${worst.box.top}`)))))));
  if (!rows.length) return null;
  return h("div", { class: "worst" }, h("h3", {}, file.frames > 1 ? "Worst frames" : "Worst part"),
    h("p", { class: "muted" }, "Original, reconstruction and luminance error where most was lost, in the file's own pixels."), rows);
}
