// The page: an overview, and a view of one clip at `#file=0001`.
"use strict";

wfReport.page = (page) => {
  document.title = page.title;
  const root = document.getElementById("root");
  const overview = h("main", { class: "overview" });
  const clipPage = h("main", { class: "clip-page", hidden: true });
  const frames = page.files.reduce((sum, file) => sum + (file.frames || 0), 0);
  const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
  let viewer = null;

  root.replaceChildren(
    h("header", { class: "top" },
      h("div", {}, h("h1", {}, h("a", { href: "#" }, page.title)),
        h("p", { class: "muted" }, [count(page.files.length, "file", "files"), count(frames, "frame", "frames"),
          page.models.length > 1 && `${page.models.length} models`].filter(Boolean).join(" · "))),
      h("button", { type: "button", class: "theme", onclick: switchTheme }, "Light / dark")),
    overview, clipPage);

  const files = makeFiles(page);
  const only = page.files.length === 1 && page.files[0].original ? page.files[0] : null;
  const inline = h("div", {});
  overview.append(...[(!only || page.models.length > 1) && makeRanking(page), only ? inline : files, makeDistribution(page), makeEnergy(page),
    makeLatents(page), makeProvenance(page)].filter(Boolean));

  async function open(file, place, alone) {
    place.replaceChildren(h("p", { class: "muted" }, "Loading…"));
    let details;
    try {
      details = await loadClip(file.id);
    } catch (error) {
      place.replaceChildren(h("p", { class: "failed" }, `${file.name}: ${error.message}`));
      return;
    }
    if (viewer) viewer.stop();
    viewer = makeViewer(page, file, details);
    place.replaceChildren(alone ? h("h2", {}, file.name) : makeClipHeader(file), makeScores(page, file), viewer.element);
  }

  function makeClipHeader(file) {
    const order = wfReport.order || [];
    const at = order.indexOf(file.id);
    const link = (step, label) => {
      const id = order[at + step];
      return h("a", { class: "button", href: id ? `#file=${id}` : null, "aria-disabled": id ? null : "true" }, label);
    };
    return h("nav", { class: "clip-nav", "aria-label": "files" }, h("a", { class: "button", href: "#" }, "All files"),
      h("h2", { title: file.name }, file.name), h("span", { class: "steps" }, link(-1, "Previous"), link(1, "Next")));
  }

  function route() {
    const id = new URLSearchParams(location.hash.slice(1)).get("file");
    const file = page.files.find((each) => each.id === id && each.original);
    if (viewer) { viewer.stop(); viewer = null; }
    overview.hidden = Boolean(file);
    clipPage.hidden = !file;
    if (file) { inline.replaceChildren(); open(file, clipPage, false); window.scrollTo(0, 0); } else {
      clipPage.replaceChildren();
      if (only) open(only, inline, true);
    }
  }

  window.addEventListener("hashchange", route);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input[type=search], select, textarea");
    if (!viewer || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.closest("button, a, summary")) return;
    if (viewer.press(event)) event.preventDefault();
  });
  route();
};

/** A clip's scores, a row a model. */
function makeScores(page, file) {
  const names = SCORES.filter((name) => file.results.some((result) => result && sortable(result[name]) !== null));
  const several = page.models.length > 1;
  return h("div", { class: "tiles-box" }, file.results.map((result, model) => {
    if (!result) return null;
    const title = several && h("span", { class: "model-name" }, dot(model), page.models[model].name);
    if (result.error) return h("div", { class: "tiles" }, title, h("span", { class: "failed" }, result.error));
    return h("div", { class: "tiles" }, title, names.map((name) => h("span", { class: "tile" },
      h("span", { class: "muted" }, metricLabel(page, name)), " ", h("b", {}, formatMetric(name, result[name])),
      METRICS[name].unit && isNumber(result[name]) && ` ${METRICS[name].unit}`)));
  }));
}

function switchTheme() {
  const html = document.documentElement;
  const dark = html.dataset.theme ? html.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  html.dataset.theme = dark ? "light" : "dark";
  document.dispatchEvent(new Event("wf-theme"));
}
