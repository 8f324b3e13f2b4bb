// The overview's sections: scores over all files, latents, subband energy, how it was made.
"use strict";

const SCORES = ["psnr", "ssim", "ms_ssim", "lpips", "flicker_psnr", "frames_per_second", "latent_bytes"];

/** Scores over all files, a row a model: the ranking where there are several. */
function makeRanking(page) {
  const several = page.models.length > 1;
  const meanOf = (model, name) => {
    if (name === "fid" || name === "fvd") return model.distances[name];
    return model.summary[name] && model.summary[name].mean;
  };
  const present = [...SCORES.slice(0, 5), "fid", "fvd", ...SCORES.slice(5)].filter((name) =>
    page.models.some((model) => sortable(meanOf(model, name)) !== null));
  const rows = page.models.map((model, number) => ({ model, number, name: model.name }));
  const bestOf = (name) => {
    const values = rows.map((row) => sortable(meanOf(row.model, name))).filter((value) => value !== null);
    return METRICS[name].better > 0 ? Math.max(...values) : Math.min(...values);
  };
  const columns = [
    { label: several ? "model" : "", left: true, value: (row) => row.name,
      show: (row) => h("span", { class: "model-name" }, several && dot(row.number), row.name) },
    ...present.map((name) => ({
      label: metricLabel(page, name), better: METRICS[name].better,
      title: METRICS[name].better < 0 ? "lower is better" : METRICS[name].better > 0 ? "higher is better" : null,
      value: (row) => sortable(meanOf(row.model, name)),
      best: (row) => several && METRICS[name].better && sortable(meanOf(row.model, name)) === bestOf(name),
      show: (row) => [formatMetric(name, meanOf(row.model, name)), spreadOf(row.model, name)],
    })),
  ];
  const table = makeTable({ columns, rows, sort: { column: present.includes("psnr") ? 1 : 0, down: true } });
  table.element.classList.add("ranking");
  const samples = page.models.flatMap((model) => Object.entries(model.distances)
    .filter(([name]) => name.endsWith("_samples")).map(([name, count]) => `${name.replace("_samples", "").toUpperCase()} of ${count} samples`));
  return h("section", {}, h("h2", {}, several ? "Ranking" : "Over all files"),
    h("p", { class: "muted" }, "Mean over files, each counting the same; below it the 5th to 95th percentile.",
      samples.length ? ` ${[...new Set(samples)].join(", ")}.` : ""),
    h("div", { class: "wide" }, table.element));
}

function spreadOf(model, name) {
  const summary = model.summary[name];
  if (!summary || !isNumber(summary.p5) || !isNumber(summary.p95) || summary.p5 === summary.p95) return null;
  return h("span", { class: "spread" }, `${formatMetric(name, summary.p5)} – ${formatMetric(name, summary.p95)}`);
}

/** A dot a file on a scale of PSNR, a row a model. */
function makeDistribution(page) {
  const rows = page.models.map((model, number) => ({ model, number, files: page.files
    .map((file) => ({ file, psnr: file.results[number] && file.results[number].psnr }))
    .filter(({ psnr }) => isNumber(psnr)) })).filter((row) => row.files.length);
  const values = rows.flatMap((row) => row.files.map(({ psnr }) => psnr));
  if (page.files.length < 3 || !values.length) return null;
  const { low, high } = chartRange(values);
  const place = (psnr) => `${((psnr - low) / (high - low)) * 100}%`;
  const ticks = niceTicks(low, high, 6).map((tick) => h("span", { class: "tick", style: { left: place(tick.value) } },
    tick.value.toFixed(tick.digits)));
  return h("section", {}, h("h2", {}, "PSNR of every file, dB"), h("div", { class: "strip" }, ticks,
    rows.map(({ number, files }) => h("div", { class: "strip-row" }, files.map(({ file, psnr }, index) => h("a", {
      class: "file-dot", href: `#file=${file.id}`, title: `${file.name}: ${psnr.toFixed(2)} dB`,
      "aria-label": `${file.name}, ${psnr.toFixed(2)} dB`,
      // Spread over the row, always in the same way, so that dots do not hide each other.
      style: { left: place(psnr), top: `${15 + ((index * 0.618) % 1) * 70}%`, background: modelColour(number) },
    }))))));
}

/** The table of files: a column group for each model. */
function makeFiles(page) {
  const present = SCORES.filter((name) => page.files.some((file) =>
    file.results.some((result) => result && sortable(result[name]) !== null)));
  const several = page.models.length > 1;
  const resultOf = (file, model) => (file.results[model] && !file.results[model].error ? file.results[model] : null);
  const bestOf = (file, name) => {
    const values = file.results.map((_, model) => sortable((resultOf(file, model) || {})[name])).filter((each) => each !== null);
    return values.length < 2 ? null : METRICS[name].better > 0 ? Math.max(...values) : Math.min(...values);
  };
  const columns = [
    { label: "file", left: true, value: (file) => file.name, className: "file", show: (file) => fileCell(file) },
    { label: "frames", value: (file) => sortable(file.frames), show: (file) => file.frames || "–" },
    { label: "size", value: (file) => (file.width ? file.width * file.height : null),
      show: (file) => (file.width ? `${file.width}×${file.height}` : "–") },
  ];
  page.models.forEach((_, model) => {
    present.forEach((name, place) => columns.push({
      label: metricLabel(page, name), better: METRICS[name].better, group: model, first: place === 0,
      title: METRICS[name].better < 0 ? "lower is better" : null,
      value: (file) => sortable((resultOf(file, model) || {})[name]),
      best: (file) => several && METRICS[name].better && resultOf(file, model)
        && bestOf(file, name) !== null && sortable(resultOf(file, model)[name]) === bestOf(file, name),
      show: (file) => {
        const result = file.results[model];
        if (result && result.error && place === 0) return h("span", { class: "failed", title: result.error }, "failed");
        return result && !result.error ? formatMetric(name, result[name]) : "–";
      },
    }));
    columns.push({
      label: "worst frame", group: model, value: (file) => sortable((resultOf(file, model) || { worst_frame: {} }).worst_frame.psnr),
      title: "its number and PSNR",
      show: (file) => {
        const worst = (resultOf(file, model) || {}).worst_frame;
        return worst ? [h("span", { class: "muted" }, `#${worst.index} `), formatMetric("psnr", worst.psnr)] : "–";
      },
    });
  });
  const groups = several ? page.models.map((model, number) => [dot(number), model.name]) : null;
  const byPsnr = columns.findIndex((column) => column.group === 0 && column.label === metricLabel(page, "psnr"));
  const table = makeTable({ columns, rows: page.files, groups,
    sort: byPsnr < 0 ? undefined : { column: byPsnr, down: false } });
  table.element.classList.add("files");
  const count = h("span", { class: "muted", role: "status" });
  const search = h("input", { type: "search", placeholder: "Search files", "aria-label": "search files",
    oninput: () => update() });
  const update = () => {
    const rows = table.filter(search.value);
    wfReport.order = rows.filter((file) => file.original).map((file) => file.id);
    count.textContent = rows.length === page.files.length ? `${rows.length} files` : `${rows.length} of ${page.files.length} files`;
  };
  update();
  table.element.addEventListener("click", update);
  const failed = page.files.filter((file) => file.results.some((result) => result && result.error));
  return h("section", {}, h("div", { class: "bar" }, h("h2", {}, "Files"), search, count),
    h("div", { class: "wide tall", tabindex: 0, "aria-label": "files" }, table.element),
    failed.length > 0 && h("details", { class: "failures" }, h("summary", {}, `${failed.length} could not be compared`),
      h("ul", {}, failed.flatMap((file) => file.results.map((result, model) => result && result.error
        && h("li", {}, h("b", {}, file.name), several && ` (${page.models[model].name})`, `: ${result.error}`))))));
}

function fileCell(file) {
  if (!file.original) return file.name;
  return h("a", { href: `#file=${file.id}` },
    h("img", { src: `clips/${file.id}/thumb.jpg`, alt: "", loading: "lazy", width: 64, height: 40 }), h("span", {}, file.name));
}

/** How much energy of each subband came back, level by level. */
function makeEnergy(page) {
  const kinds = ["video", "image"].filter((kind) => page.models.some((model) => model.energy.some((each) => each.kind === kind)));
  if (!kinds.length) return null;
  const blocks = kinds.map((kind) => {
    const models = page.models.map((model, number) => ({ number, energy: model.energy.find((each) => each.kind === kind) }))
      .filter((each) => each.energy);
    const axes = kind === "video" ? "time, height, width" : "height, width";
    return h("div", {}, h("p", { class: "muted" }, `${kind === "video" ? "Videos" : "Images"}: letters are ${axes}; L is a sum, H a difference.`),
      h("div", { class: "levels" }, models[0].energy.levels.map((bands, level) => h("div", { class: "level" },
        h("h4", {}, `Level ${level + 1}`, level === 0 && h("span", { class: "muted" }, " finest detail")),
        bands.map((band, index) => h("div", { class: "band" },
          h("span", { class: "band-name" }, band.name),
          h("span", { class: "muted share", title: "share of the original's energy at this level" }, formatShare(band.share)),
          h("span", { class: "band-bars" }, models.map(({ number, energy }) => bandBar(number, energy.levels[level][index].kept)))))))));
  });
  return h("section", {}, h("h2", {}, "Energy kept, by Haar subband"),
    h("p", { class: "muted" }, "Energy of the reconstruction as a share of the original's. Below 100 %, detail was smoothed away; above, something was added. The grey figure is the subband's share of the level's energy."), blocks);
}

const formatShare = (share) => (share >= 0.1 ? `${(share * 100).toFixed(0)} %` : share >= 0.001 ? `${(share * 100).toFixed(1)} %` : "<0.1 %");

function bandBar(number, kept) {
  if (kept === null) return h("span", { class: "band-bar muted" }, "none");
  return h("span", { class: "band-bar" },
    h("span", { class: "track" }, h("span", { class: "fill", style: { width: `${Math.min(100, kept * 100)}%`, background: modelColour(number) } })),
    h("span", { class: "value" }, kept >= 10 ? ">999 %" : `${(kept * 100).toFixed(kept >= 1.995 || (kept < 0.995 && kept >= 0.0995) ? 0 : 1)} %`));
}

/** Mean, std, KL and scale factors of every channel, and how channels correlate. */
function makeLatents(page) {
  const models = page.models.filter((model) => model.latents);
  if (!models.length) return null;
  return h("section", {}, h("h2", {}, "Latents"), models.map((model) => {
    const s = model.latents;
    const rows = s.mean.map((_, channel) => ({ channel, name: String(channel) }));
    const column = (label, values, digits) => ({ label, value: (row) => values[row.channel], show: (row) => values[row.channel].toFixed(digits) });
    const table = makeTable({ rows, columns: [
      { label: "channel", left: true, value: (row) => row.channel },
      column("mean", s.mean, 4), column("std", s.std, 4), ...(s.kl ? [column("KL, nats", s.kl, 3)] : []),
      column("scale", s.factors.scale, 4)] });
    const total = s.kl_total === null ? "" : ` · KL ${s.kl_total.toFixed(2)} nats per position`;
    return h("div", { class: "latents" }, h("h3", {}, model.name),
      h("p", { class: "muted" }, `${s.clips.toLocaleString("en")} clips · ${s.count.toLocaleString("en")} latents per channel · mean ${s.global_mean.toFixed(4)}, std ${s.global_std.toFixed(4)}${total}`),
      h("div", { class: "columns" }, h("div", { class: "wide" }, table.element),
        h("div", {}, h("h4", {}, "Correlation of channels"), makeCorrelation(s.correlation))),
      h("details", {}, h("summary", {}, "Scale factors in every convention"),
        Object.entries(s.formulas).map(([name, formula]) => h("p", { class: "formula" }, h("b", {}, name), h("br", {}), h("code", {}, formula))),
        h("pre", { tabindex: 0 }, JSON.stringify(s.factors, null, 1))));
  }));
}

/** A square a pair of channels, the diagonal left out; colours reach to the largest. */
function makeCorrelation(matrix) {
  const count = matrix.length, size = 360 / count;
  let top = 0;
  matrix.forEach((row, i) => row.forEach((value, j) => { if (i !== j) top = Math.max(top, Math.abs(value)); }));
  const cells = matrix.flatMap((row, i) => row.map((value, j) => i !== j && h("rect", {
    x: j * size, y: i * size, width: size + 0.3, height: size + 0.3,
    style: { fill: value > 0 ? "var(--plus)" : "var(--minus)", "fill-opacity": top ? Math.abs(value) / top : 0 },
  }, h("title", {}, `channels ${i} and ${j}: ${value.toFixed(3)}`))));
  return h("div", { class: "correlation" },
    h("svg", { viewBox: "0 0 360 360", role: "img", "aria-label": "correlation matrix" }, cells),
    h("p", { class: "muted" }, h("span", { class: "chip minus" }), `−${top.toFixed(2)} `, h("span", { class: "chip plus" }), `+${top.toFixed(2)}`));
}

/** What it takes to repeat the run. */
function makeProvenance(page) {
  const entry = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  const text = (value) => (value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const video = page.files.some((file) => file.original && file.original.frames > 1);
  const copies = `Scores were computed before that. The ${video ? "videos" : "pictures"} shown here are copies for looking at: `
    + (video ? `at most ${page.max_side} pixels a side and ${page.max_frames} frames, 8-bit, re-encoded with loss and evenly spaced in time. ` : "8-bit PNG. ")
    + "Crops of the worst frames are lossless.";
  return h("section", { class: "provenance" }, h("h2", {}, "How this was made"),
    h("p", {}, copies), page.notes.map((note) => h("p", {}, note)),
    page.command && h("pre", { tabindex: 0 }, page.command),
    h("dl", {}, Object.entries(page.versions).map(([name, value]) => entry(name, value)),
      Object.entries(page.options).map(([name, value]) => entry(name, text(value)))),
    page.models.filter((model) => Object.keys(model.facts).length).map((model) => h("div", {},
      h("h3", {}, model.name), h("dl", {}, Object.entries(model.facts).map(([name, value]) => entry(name, text(value)))))));
}
