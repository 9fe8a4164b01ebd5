"use strict";
// The reading room's page: it asks the server for room.json, and per image for image/ID.json, tiles and a heatmap.
const at = (id) => document.getElementById(id);
const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
const short = (name) => name.split("/").slice(-2).join("/");
const percent = (value) => (value === null ? "–" : `${Math.round(100 * value)} %`);
const HANG = ["R-CC", "L-CC", "R-MLO", "L-MLO"]; // left to right, then down: breasts back to back
let room, cases, current, chosen, views = [], window_ = { mode: "auto", low: 0, high: 65535, invert: false };

async function ask(path, body) {
  const answer = await fetch(path, body === undefined ? {} : { method: "POST", body });
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}
function say(text) { at("status").textContent = text; }
async function tell(path, value) {
  try { await ask(path, JSON.stringify(value)); return true; } catch (error) { say(error.message); return false; }
}

// The worklist -------------------------------------------------------------------------------------------------------
const best = (item, of) => item.images.reduce((most, image) => Math.max(most, of(image)), -1);
const errorOf = (image) => (image.label < 0 || image.score === null ? -1 : Math.abs(image.label - image.score));
const scoreOf = (image) => (image.score === null ? -1 : image.score);
const threshold = () => (room.operating ? room.operating.threshold[at("threshold").value] : Infinity);
const missed = (image) => image.label === 1 && image.score !== null && image.score < threshold();
const alarmed = (image) => image.label === 0 && image.score !== null && image.score >= threshold();
const marked = (image) => image.tags.length > 0 || image.comment !== "";

function list() {
  const shown = { all: () => true, missed: (c) => c.images.some(missed), false: (c) => c.images.some(alarmed), marked: (c) => c.images.some(marked) };
  cases = room.blind ? [...room.cases] : room.cases.filter(shown[at("show").value]);
  const by = { score: (a, b) => best(b, scoreOf) - best(a, scoreOf), error: (a, b) => best(b, errorOf) - best(a, errorOf), name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }) };
  if (!room.blind) cases.sort(by[at("sort").value]);
  at("list").replaceChildren(...cases.map((item) => {
    const button = make("button"), line = make("li");
    if (room.blind) {
      const done = Object.values(item.reads).every((p) => p !== null);
      button.append(make("span", done ? "✓" : "", "sign"), make("span", item.name, "grow"));
    } else {
      const worst = item.images.find((image) => image.label === 1) || item.images.find((image) => image.class === "benign") || item.images[0];
      const signs = (item.images.some(missed) ? "▼" : "") + (item.images.some(alarmed) ? "▲" : "") + (item.images.some(marked) ? "✎" : "");
      const score = best(item, scoreOf);
      const dot = make("span", "", `dot ${worst.class}`);
      dot.title = worst.class || "no label";
      button.append(dot, make("span", item.name, "grow"), make("span", signs, "sign"), make("span", score < 0 ? "" : score.toFixed(2)));
      button.title = `${worst.class || "no label"}${signs.includes("▼") ? "; missed" : ""}${signs.includes("▲") ? "; false alarm" : ""}`;
    }
    button.dataset.id = item.id;
    button.setAttribute("aria-current", current === item);
    button.onclick = () => open(item);
    line.append(button);
    return line;
  }));
  at("count").textContent = `${cases.length} exams${room.rejected ? `; ${room.rejected} files or rows are not shown` : ""}. ${room.blind ? "" : "▼ missed ▲ false alarm ✎ marked"}`;
}
function step(by) {
  const next = cases[cases.indexOf(current) + by];
  if (next) { open(next); at("list").querySelector("[aria-current=true]").scrollIntoView({ block: "nearest" }); }
}
function measures() {
  const found = room.operating, k = at("threshold").value;
  const names = { sensitivity: "sensitivity", specificity: "specificity", recall: "recalled" };
  at("threshold-text").textContent = found.threshold[k].toFixed(3);
  at("measures").replaceChildren(...Object.keys(names).map((name) => {
    const [value, low, high] = found[name][k], row = make("tr");
    row.id = name;
    row.append(make("td", names[name]), make("td", percent(value)), make("td", low === null ? "too few" : `${percent(low)} – ${percent(high)}`));
    return row;
  }));
}

// The views ----------------------------------------------------------------------------------------------------------
async function open(item) {
  current = item;
  if (!room.blind) history.replaceState(null, "", `#${item.id}`);
  for (const button of at("list").querySelectorAll("button")) button.setAttribute("aria-current", button.dataset.id === String(item.id));
  const spot = (image) => HANG.indexOf(`${image.laterality}-${image.view}`);
  const hung = [], rest = [];
  for (const image of item.images) (spot(image) >= 0 && !hung.some((other) => spot(other) === spot(image)) ? hung : rest).push(image);
  hung.sort((a, b) => spot(a) - spot(b));
  while (hung.length < 4 && rest.length) hung.push(rest.shift());
  details();
  await show(hung);
}
async function show(images) {
  for (const view of views) view.viewer.destroy();
  views = [];
  const sides = new Set(images.map((image) => image.laterality)), rows = new Set(images.map((image) => image.view));
  const grid = images.length > 1 && images.every((image) => HANG.includes(`${image.laterality}-${image.view}`));
  const columns = grid ? sides.size : Math.min(images.length, 2);
  at("views").style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  at("views").style.gridTemplateRows = `repeat(${grid ? rows.size : Math.ceil(images.length / columns)}, minmax(0, 1fr))`;
  at("views").replaceChildren();
  say("loading …");
  const opened = images.map(async (image) => {
    const panel = make("div", "", "view"), element = make("div", "", "openseadragon");
    const caption = make("div", captionOf(image), `caption ${image.laterality === "R" ? "" : "right"}`);
    panel.append(element, caption);
    if (grid) {
      panel.style.gridColumn = sides.size > 1 && image.laterality === "L" ? 2 : 1;
      panel.style.gridRow = [...rows].indexOf(image.view) + 1;
    }
    at("views").append(panel);
    const viewer = OpenSeadragon({ element, drawer: "canvas", showNavigationControl: false, crossOriginPolicy: false,
      maxZoomPixelRatio: 8, visibilityRatio: 0.2, animationTime: 0.3, preserveImageSizeOnResize: true,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false } });
    if (grid) backToBack(viewer, image.laterality);
    const view = { image, panel, viewer, items: [], heat: null };
    views.push(view);
    viewer.addHandler("canvas-click", () => choose(image));
    viewer.addHandler("canvas-double-click", () => (images.length > 1 ? show([image]) : open(current)));
    viewer.addHandler("viewport-change", () => follow(view));
    panel.addEventListener("contextmenu", (event) => event.preventDefault());
    panel.addEventListener("pointerdown", (event) => { if (event.button === 2) drag(event); }, true);
    try {
      view.size = await (await ask(`image/${image.id}.json`)).json();
      if (views.includes(view)) { await draw(view); outline(view); if (at("heat").checked) await heat(view); }
      if (view.size.mirrored) caption.textContent += " (mirrored)";
    } catch (error) { caption.textContent += `: ${error.message}`; }
  });
  choose(images[0]);
  await Promise.all(opened);
  if (at("status").textContent === "loading …") say("");
}
function backToBack(viewer, side) { // at home the chest wall is at the edge between the breasts, not amid black
  const { viewport } = viewer;
  viewport.getHomeBounds = () => {
    const width = 1 / viewport.getHomeZoom(), height = width / viewport.getAspectRatio(), size = viewer.world.getHomeBounds();
    return new OpenSeadragon.Rect(side === "R" ? size.width - width : 0, (size.height - height) / 2, width, height);
  };
}
function captionOf(image) {
  const view = [image.laterality, image.view].filter(Boolean).join(" ") || "view unknown";
  if (room.blind) return view;
  return [view, image.class, image.score === null ? "" : `p ${image.score.toFixed(2)}`].filter(Boolean).join(" · ");
}
function valuesOf(view) {
  const [low, high] = window_.mode === "auto" ? [view.size.low, view.size.high] : [window_.low, window_.high];
  return window_.invert ? [high, low] : [low, high];
}
function draw(view) { // the new window is drawn above the old one, which goes when all of it is there
  const { id, width, height, levels, side, mirrored } = view.size, [low, high] = valuesOf(view);
  const tileSource = { width, height, tileSize: side, tileOverlap: 0, minLevel: 0, maxLevel: levels - 1,
    getTileUrl: (level, x, y) => `tile/${id}/${level}_${x}_${y}.png?low=${low}&high=${high}` };
  return new Promise((resolve, reject) => view.viewer.addTiledImage({ tileSource, width: 1, flipped: mirrored,
    index: view.items.length, error: (event) => reject(new Error(event.message)),
    success: ({ item }) => {
      view.items.push(item);
      const clean = () => {
        const older = view.items.splice(0, view.items.indexOf(item));
        for (const old of older) view.viewer.world.removeItem(old);
      };
      item.addHandler("fully-loaded-change", ({ fullyLoaded }) => { if (fullyLoaded && view.items.includes(item)) clean(); });
      resolve();
    } }));
}
let waiting = 0;
function redraw() {
  clearTimeout(waiting);
  waiting = setTimeout(() => views.filter((view) => view.size).forEach(draw), 40);
  for (const name of ["auto", "full", "invert"]) at(name).classList.toggle("on", name === "invert" ? window_.invert : window_.mode === name);
}
function setWindow(change) {
  Object.assign(window_, change);
  if (change.mode === "full") Object.assign(window_, { low: 0, high: 65535 });
  const view = views.find((v) => v.image === chosen && v.size) || views.find((v) => v.size);
  if (change.mode === "auto" && view) Object.assign(window_, { low: view.size.low, high: view.size.high });
  window_.high = Math.max(window_.high, window_.low + 1);
  at("low").value = window_.low; at("high").value = window_.high;
  redraw();
}
function drag(event) { // right button: sideways the width, up and down the brightness, as in a reading station
  const start = [event.clientX, event.clientY], view = views.find((v) => v.panel === event.currentTarget);
  const [low, high] = window_.mode === "auto" && view?.size ? [view.size.low, view.size.high] : [window_.low, window_.high];
  const move = (moved) => {
    const wide = Math.max(64, (high - low) * Math.exp((moved.clientX - start[0]) / 300));
    const middle = (low + high) / 2 + (moved.clientY - start[1]) * ((high - low) / 500);
    setWindow({ mode: "own", low: Math.round(middle - wide / 2), high: Math.round(middle + wide / 2) });
  };
  const stop = () => { removeEventListener("pointermove", move); removeEventListener("pointerup", stop); };
  addEventListener("pointermove", move); addEventListener("pointerup", stop);
  event.preventDefault(); event.stopPropagation();
}
let leading = false;
function follow(view) { // the other views take the zoom, and the place, mirrored for the other breast
  if (leading || !at("together").checked || !view.size) return;
  leading = true;
  const { x, y } = view.viewer.viewport.getCenter(), relative = view.viewer.viewport.getZoom() / view.viewer.viewport.getHomeZoom();
  for (const other of views) {
    if (other === view || !other.size) continue;
    const across = other.image.laterality === view.image.laterality ? x : 1 - x;
    const down = (y * view.size.width / view.size.height) * (other.size.height / other.size.width);
    other.viewer.viewport.zoomTo(relative * other.viewer.viewport.getHomeZoom(), undefined, true);
    other.viewer.viewport.panTo(new OpenSeadragon.Point(across, down), true);
  }
  leading = false;
}
function outline(view) {
  const { width, height, mirrored, outlines } = view.size, space = "http://www.w3.org/2000/svg";
  if (!outlines.length) return;
  const svg = document.createElementNS(space, "svg"), group = document.createElementNS(space, "g"), box = make("div");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`); svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "outline");
  if (mirrored) group.setAttribute("transform", `translate(${width} 0) scale(-1 1)`);
  for (const lesion of outlines) {
    const polygon = document.createElementNS(space, "polygon");
    polygon.setAttribute("points", lesion.points.map((point) => point.join(",")).join(" "));
    polygon.setAttribute("class", lesion.class);
    group.append(polygon);
  }
  svg.append(group); box.append(svg); box.hidden = !at("outlines").checked; box.className = "outlines";
  view.viewer.addOverlay({ element: box, location: new OpenSeadragon.Rect(0, 0, 1, height / width) });
}
async function heat(view) {
  if (view.heat) { view.heat.setOpacity(at("heat").checked ? Number(at("opacity").value) : 0); return; }
  if (!at("heat").checked || view.asked) return;
  view.asked = true;
  say("computing the heatmap …");
  try {
    const url = URL.createObjectURL(await (await ask(`heat/${view.image.id}.png`)).blob());
    if (!views.includes(view)) return;
    view.viewer.addTiledImage({ tileSource: { type: "image", url, buildPyramid: false }, width: 1, flipped: view.size.mirrored,
      opacity: Number(at("opacity").value), success: ({ item }) => { view.heat = item; view.panel.dataset.heat = "here"; heat(view); } });
    say("");
  } catch (error) { say(error.message); at("heat").checked = false; }
}

// What is said of an image -------------------------------------------------------------------------------------------
function choose(image) {
  chosen = image;
  for (const view of views) view.panel.classList.toggle("chosen", view.image === image && views.length > 1);
  if (room.blind || !room.mark || image.dropped) { at("marking").hidden = true; return; }
  at("marking").hidden = false;
  at("marked-image").textContent = `${captionOf(image)} · ${short(image.name)}`;
  at("comment").value = image.comment;
  at("tags").replaceChildren(...room.tags.map((tag) => {
    const button = make("button", tag, image.tags.includes(tag) ? "on" : "");
    button.onclick = () => {
      image.tags = image.tags.includes(tag) ? image.tags.filter((other) => other !== tag) : [...image.tags, tag];
      button.classList.toggle("on");
      note(image);
    };
    return button;
  }));
}
async function note(image) {
  if (await tell("mark", { image: image.id, tags: image.tags, comment: image.comment })) list();
}
function details() {
  const facts = at("facts");
  facts.replaceChildren(make("h2", current.name));
  if (room.blind) { reading(); return; }
  if (current.patient && current.patient !== current.name) facts.append(make("p", `patient ${current.patient}`, "soft"));
  const table = make("table");
  for (const image of current.images) {
    const row = make("tr"), cell = make("td"), button = make("button", [image.laterality, image.view].filter(Boolean).join(" ") || "view");
    button.title = `${image.name}: alone`; button.onclick = () => show([image]);
    cell.append(button);
    row.append(cell, make("td", image.class, image.class), make("td", image.score === null ? "" : image.score.toFixed(3)));
    table.append(row);
  }
  facts.append(table, ...current.images.map((image) => Object.assign(make("p", short(image.name), "soft"), { title: image.name })));
  if (room.by_breast) facts.append(make("p", "Scores are of breasts.", "soft"));
}
function reading() {
  const exam = current; // the reader may be at the next one before the server has answered
  at("breasts").replaceChildren(...Object.keys(exam.reads).map((side) => {
    const label = make("label"), text = make("output"), input = make("input"), said = exam.reads[side];
    const image = exam.images.find((other) => other.laterality === side);
    Object.assign(input, { type: "range", min: 0, max: 100, step: 1, value: said === null ? 50 : Math.round(100 * said) });
    input.dataset.side = side;
    text.textContent = said === null ? "not read" : `${Math.round(100 * said)} %`;
    input.oninput = () => { text.textContent = `${input.value} %`; };
    input.onchange = async () => {
      if (!(await tell("read", { image: image.id, p: input.value / 100 }))) return;
      exam.reads[side] = input.value / 100; list(); progress();
    };
    label.append(`${side === "R" ? "right" : "left"} breast: `, text, input);
    return label;
  }));
  progress();
}
function progress() {
  const every = room.cases.flatMap((item) => Object.values(item.reads));
  at("progress").textContent = `${every.filter((p) => p !== null).length} of ${every.length} breasts read`;
}
async function dropped(file) {
  say(`scoring ${file.name} …`);
  try {
    const image = await (await ask("predict", file)).json();
    Object.assign(image, { name: file.name, class: "", label: -1, dropped: true, tags: [], comment: "" });
    const item = { id: `dropped-${image.id}`, name: file.name, patient: "", images: [image] };
    room.cases.push(item);
    at("show").value = "all";
    list(); say(""); await open(item);
  } catch (error) { say(error.message); }
}

// The page -----------------------------------------------------------------------------------------------------------
function listen() {
  at("sort").onchange = at("show").onchange = list;
  at("threshold").oninput = () => { measures(); list(); };
  at("auto").onclick = () => setWindow({ mode: "auto" });
  at("full").onclick = () => setWindow({ mode: "full" });
  at("invert").onclick = () => setWindow({ invert: !window_.invert });
  at("low").oninput = () => setWindow({ mode: "own", low: Number(at("low").value) });
  at("high").oninput = () => setWindow({ mode: "own", high: Number(at("high").value) });
  at("home").onclick = () => views.forEach((view) => view.viewer.viewport.goHome());
  at("outlines").onchange = () => document.querySelectorAll(".outlines").forEach((box) => { box.style.display = at("outlines").checked ? "" : "none"; });
  at("heat").onchange = at("opacity").oninput = () => views.filter((view) => view.size).forEach(heat);
  at("comment").onchange = () => { chosen.comment = at("comment").value; note(chosen); };
  at("next").onclick = () => step(1);
  addEventListener("keydown", (event) => {
    if (event.target.matches("textarea, select, input[type=range]") || event.ctrlKey || event.metaKey) return;
    const click = { a: "auto", f: "full", i: "invert", o: "outlines", h: "heat", 0: "home" }[event.key];
    if (click && !at(click).closest("[hidden]")) at(click).click();
    if (event.key === "ArrowDown") { step(1); event.preventDefault(); }
    if (event.key === "ArrowUp") { step(-1); event.preventDefault(); }
  });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.toggle("dropping", room.predict); });
  addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (room.predict) for (const file of event.dataTransfer.files) await dropped(file);
  });
}
async function start() {
  room = await (await ask("room.json")).json();
  document.body.classList.toggle("blind", room.blind);
  if (room.name) { at("name").textContent = room.name; document.title = `${room.name} – mammojax view`; }
  at("reading").hidden = !room.blind;
  at("drop").hidden = at("heat-box").hidden = !room.predict;
  at("heat-box").style.display = room.predict ? "" : "none";
  at("threshold-box").hidden = !room.operating;
  if (room.operating) {
    const { threshold: all, specificity, n, unit, chosen: of_run } = room.operating;
    at("threshold").max = all.length - 1;
    const start = of_run === null ? specificity.findIndex(([value]) => value !== null && value >= 0.8) : all.findIndex((t) => t >= of_run);
    at("threshold").value = start < 0 ? all.length - 1 : start;
    at("unit").textContent = `${n[1]} malignant and ${n[0]} other ${unit}; 95 % intervals by patient${of_run === null ? "" : `; the run's operating point: ${of_run.toFixed(3)}`}`;
    measures();
  } else at("sort").value = "name";
  listen(); list(); redraw();
  const first = cases.find((item) => `#${item.id}` === location.hash) || (room.blind && cases.find((item) => Object.values(item.reads).includes(null))) || cases[0];
  if (first) await open(first);
}
start().catch((error) => say(error.message));
