// Scores of every frame: one chart a score, a line a model, chunk borders, a click that jumps.
"use strict";

const CHART = { height: 116, left: 46, right: 10, top: 10, bottom: 18 };

/**
 * @param {object} page
 * @param {object[]} details  of every model, null where it has none
 * @param {number} frames
 * @param {function(number)} onSeek  called with the frame that was clicked
 */
function makeCurves(page, details, frames, onSeek) {
  const names = ["psnr", "flicker_psnr", "ssim", "ms_ssim", "lpips"].filter((name) =>
    details.some((detail) => detail && detail.curves[name] && detail.curves[name].some(isNumber)));
  const borders = [...new Set(details.flatMap((detail) => (detail ? detail.chunks : [])))].filter((at) => at > 0);
  const charts = names.map((name) => makeChart(page, name, details, frames, borders, onSeek));
  const element = h("div", { class: "curves" }, charts.map((chart) => chart.element));
  const redraw = () => charts.forEach((chart) => chart.draw());
  new ResizeObserver(redraw).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("wf-theme", redraw);
  return { element, move: (frame) => charts.forEach((chart) => chart.move(frame)) };
}

function makeChart(page, name, details, frames, borders, onSeek) {
  const canvas = h("canvas", { class: "chart", role: "img", tabindex: "-1",
    "aria-label": `${metricLabel(page, name)} of every frame` });
  const cursor = h("div", { class: "cursor" });
  const readout = h("span", { class: "readout" });
  const lower = METRICS[name].better < 0 ? ", lower is better" : "";
  const unit = METRICS[name].unit ? ` (${METRICS[name].unit})` : "";
  const element = h("figure", { class: "chart-box", "data-metric": name },
    h("figcaption", {}, h("b", {}, metricLabel(page, name)), `${unit}${lower}`, readout),
    h("div", { class: "plot" }, canvas, cursor));
  const lines = details.map((detail, model) => ({ model, values: detail && detail.curves[name] }))
    .filter((line) => line.values);
  const finite = lines.flatMap((line) => line.values.filter(isNumber));
  const range = chartRange(finite);
  let current = 0;

  const inner = () => canvas.clientWidth - CHART.left - CHART.right;
  const place = (frame) => CHART.left + (frames < 2 ? 0.5 : frame / (frames - 1)) * inner();
  const frameAt = (event) => {
    const x = event.clientX - canvas.getBoundingClientRect().left - CHART.left;
    return Math.max(0, Math.min(frames - 1, Math.round((x / inner()) * (frames - 1))));
  };
  const tell = (frame) => readout.replaceChildren(...lines.flatMap(({ model, values }) => [
    dot(model), formatMetric(name, values[frame]), " "]), `frame ${frame}`);
  canvas.addEventListener("click", (event) => onSeek(frameAt(event)));
  canvas.addEventListener("pointermove", (event) => tell(frameAt(event)));
  canvas.addEventListener("pointerleave", () => tell(current));

  function move(frame) {
    current = frame;
    cursor.style.transform = `translateX(${place(frame)}px)`;
    tell(frame);
  }
  function draw() {
    const context = scaledContext(canvas);
    if (!context) return;
    const style = getComputedStyle(canvas);
    const colour = (key) => style.getPropertyValue(key).trim();
    drawAxes(context, canvas, range, METRICS[name].digits, frames, colour);
    context.strokeStyle = colour("--chunk");
    context.setLineDash([2, 3]);
    // Borders that are nearer than a few pixels would be a grey area.
    if (borders.length < inner() / 6) {
      for (const border of borders) {
        const x = Math.round(place(border - 0.5)) + 0.5;
        strokeLine(context, x, CHART.top, x, CHART.height - CHART.bottom);
      }
    }
    context.setLineDash([]);
    for (const { model, values } of lines) {
      context.strokeStyle = context.fillStyle = colour(`--model-${model % 8}`);
      drawLine(context, values, range, place);
    }
    move(current);
  }
  return { element, draw, move };
}

function scaledContext(canvas) {
  const width = canvas.clientWidth;
  if (!width) return null;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(CHART.height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

function chartRange(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const pad = (high - low) * 0.08 || Math.abs(high) * 0.02 || 1;
  return { low: low - pad, high: high + pad };
}

const heightOf = (value, { low, high }) =>
  CHART.top + (1 - (value - low) / (high - low)) * (CHART.height - CHART.top - CHART.bottom);

function strokeLine(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function drawAxes(context, canvas, range, digits, frames, colour) {
  context.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  context.fillStyle = colour("--muted");
  context.strokeStyle = colour("--line");
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const tick of niceTicks(range.low, range.high, 3)) {
    const y = Math.round(heightOf(tick.value, range)) + 0.5;
    strokeLine(context, CHART.left, y, canvas.clientWidth - CHART.right, y);
    context.fillText(tick.value.toFixed(Math.min(digits, tick.digits)), CHART.left - 6, y);
  }
  context.textBaseline = "alphabetic";
  context.textAlign = "left";
  context.fillText("0", CHART.left, CHART.height - 4);
  context.textAlign = "right";
  if (frames > 1) context.fillText(`${frames - 1}`, canvas.clientWidth - CHART.right, CHART.height - 4);
}

function niceTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw * 0.8);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k += 1) ticks.push({ value: k * step, digits });
  return ticks;
}

/** A line through the values; gaps where frames are identical or have no score. */
function drawLine(context, values, range, place) {
  context.lineWidth = 1.6;
  context.lineJoin = "round";
  context.beginPath();
  let pen = false;
  values.forEach((value, frame) => {
    if (!isNumber(value)) { pen = false; return; }
    const x = place(frame), y = heightOf(value, range);
    if (pen) context.lineTo(x, y); else context.moveTo(x, y);
    pen = true;
  });
  context.stroke();
  if (values.length > 80) return;
  values.forEach((value, frame) => {
    if (!isNumber(value)) return;
    context.beginPath();
    context.arc(place(frame), heightOf(value, range), 2, 0, 7);
    context.fill();
  });
}
