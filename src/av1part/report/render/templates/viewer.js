(() => {
  "use strict";
  const root = document.currentScript.closest(".viewer");
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const { classes, cuts, rectangles, legal, marks } = data;
  const [stage, image, node, detail] = ["stage", "image", "node", "detail"].map(part);
  const CLASS = marks.drawn - 1;  // the bits of a class
  const WHOLE = [[0, 0, 4, 4]];  // the rectangle of a node that is not cut
  let frame, layers = [], chosen = null;  // layers: the largest size first; chosen: {size, row, col}
  let turn = 0;  // counts drawings, so that a late one is dropped

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function layerOf(size, text) {
    const rows = Math.floor(frame.height / size), cols = Math.floor(frame.width / size);
    const bytes = await unpack(text), plane = rows * cols;
    return {
      size, rows, cols,
      code: bytes.subarray(0, plane),
      label: bytes.subarray(plane, 2 * plane),
      type: bytes.subarray(2 * plane, 3 * plane),
      share: (index, of) => bytes[(3 + of) * plane + index],
    };
  }

  function options(select, values, texts) {
    const before = select.value;
    select.replaceChildren(...values.map((value, i) => new Option(texts[i], value)));
    if (values.map(String).includes(before)) select.value = before;
    select.disabled = values.length < 2;
  }

  const sequence = () => data.sequences[Number(part("sequence").value)];

  function fillFrames() {
    const { frames, total } = sequence();
    options(part("frame"), frames.map((_, i) => i), frames.map((f) => `${f.number} (of ${total})`));
    root.querySelector("[data-numbered]").hidden = frames.every((f) => f.number === null);
    fillQindexes();
  }

  function fillQindexes() {
    frame = sequence().frames[Number(part("frame").value)];
    const qindexes = Object.keys(frame.layers);
    options(part("qindex"), qindexes, qindexes);
    show();
  }

  const show = () => load().catch(failed);

  async function load() {
    const own = ++turn;
    const packed = frame.layers[part("qindex").value];
    const sizes = Object.keys(packed).map(Number).sort((a, b) => b - a);
    const found = await Promise.all(sizes.map((size) => layerOf(size, packed[size])));
    if (own !== turn) return;
    layers = found;
    const source = `data:image/png;base64,${frame.png}`;
    if (image.src !== source) { image.src = source; await image.decode(); }
    if (own !== turn) return;
    part("overlay").setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    fillLevels();
    const truth = layers.some((layer) => layer.label.some((label) => label !== marks.absent));
    for (const key of root.querySelectorAll("[data-truth]")) key.hidden = !truth;
    root.querySelector("[data-missing]").hidden = !pathOf(missing, box);
    for (const words of root.querySelectorAll("[data-sizes]")) words.hidden = layers.length < 2;
    drawCuts();
    choose(kept(chosen) || first());
    root.dataset.ready = `${part("sequence").value}/${part("frame").value}/${part("qindex").value}`;
  }

  function fillLevels() {
    part("levels").hidden = layers.length < 2;
    part("levels").replaceChildren(...layers.map(({ size }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = size;
      button.title = `Nodes of ${size}x${size}`;
      button.dataset.size = size;
      button.addEventListener("click", () => toSize(size));
      return button;
    }));
  }

  // Nodes and their cuts

  const layerAt = (size) => layers.find((layer) => layer.size === size);
  const codeOf = (layer, at) => layer.code[at.row * layer.cols + at.col];
  const labelOf = (layer, at) => layer.label[at.row * layer.cols + at.col];

  function at(size, y, x) {
    const layer = layerAt(size);
    const row = Math.floor(y / size), col = Math.floor(x / size);
    const inside = layer && row >= 0 && col >= 0 && row < layer.rows && col < layer.cols;
    return inside ? { size, row, col } : null;
  }

  const kept = (old) => old && at(old.size, old.row * old.size, old.col * old.size);
  const tints = [...root.querySelectorAll("[data-tint]")];

  function first() {
    for (const { size, rows, cols, code } of layers) {
      const found = code.findIndex((value) => value !== marks.absent);
      if (rows * cols) return { size, row: Math.floor(Math.max(0, found) / cols), col: Math.max(0, found) % cols };
    }
    return null;
  }

  // Call `each` with place, sides, row and column of every rectangle of the nodes that have some.
  function eachRectangle(rectanglesOf, each) {
    for (const layer of layers) {
      const { size, rows, cols } = layer, unit = size / 4;
      for (let i = 0; i < rows * cols; i++) {
        const top = Math.floor(i / cols) * size, left = (i % cols) * size;
        for (const [row, col, height, width] of rectanglesOf(layer, i) || []) {
          each(left + col * unit, top + row * unit, width * unit, height * unit, row, col);
        }
      }
    }
  }

  function drawn({ code }, i) {
    return code[i] !== marks.absent && code[i] & marks.drawn ? code[i] & CLASS : null;
  }
  const inTree = (layer, i) => (drawn(layer, i) === null ? null : WHOLE);
  const predicted = (layer, i) => cuts[drawn(layer, i)];
  const tinted = (index) => (layer, i) => (drawn(layer, i) === index ? WHOLE : null);
  const actual = ({ type }, i) => rectangles[type[i]];
  const differing = ({ code }, i) => (code[i] !== marks.absent && code[i] & marks.differs ? WHOLE : null);
  // Of several sizes a place without a node is one of another size.
  const missing = ({ code, label }, i) =>
    (layers.length < 2 && code[i] === marks.absent && label[i] === marks.absent ? WHOLE : null);
  const shown = (name) => part(`show-${name}`).checked;

  const box = (x, y, w, h) => `M${x} ${y}h${w}v${h}h${-w}z`;
  const corner = (x, y, w) => `M${x + w} ${y}h${-0.3 * w}l${0.3 * w} ${0.3 * w}z`;
  // The upper and left side of a rectangle, where they are not sides of its node.
  const inner = (x, y, w, h, row, col) =>
    (row ? `M${x} ${y}h${w}` : "") + (col ? `M${x} ${y}v${h}` : "");

  // The path that `step` makes of each rectangle, of those in a square window if there is one.
  function pathOf(rectanglesOf, step, window = null) {
    const steps = [];
    eachRectangle(rectanglesOf, (x, y, w, h, row, col) => {
      if (window) {
        const [left, top, side] = window;
        if (x >= left + side || y >= top + side || x + w <= left || y + h <= top) return;
      }
      steps.push(step(x, y, w, h, row, col));
    });
    return steps.join("");
  }

  function drawCuts() {
    const draw = (name, path) => part(name).setAttribute("d", path);
    const path = shown("cuts") ? pathOf(predicted, inner) : "";
    draw("casing", path);
    draw("cuts", path);
    tints.forEach((tint, i) => tint.setAttribute("d", shown("cuts") ? pathOf(tinted(i), box) : ""));
    draw("dim", pathOf(missing, box));
    draw("grid", pathOf(inTree, box));
    draw("under", shown("true") ? pathOf(actual, inner) : "");
    draw("mask", shown("mark") ? pathOf(differing, box) : "");
    draw("flags", shown("mark") ? pathOf(differing, corner) : "");
  }

  // The chosen node

  function choose(next) {
    chosen = next;
    node.hidden = !chosen;
    if (!chosen) { part("title").textContent = "No node here"; part("bars").replaceChildren(); return; }
    const { size, row, col } = chosen;
    const percent = (value, of) => `${(100 * value) / of}%`;
    node.style.left = percent(col * size, frame.width);
    node.style.top = percent(row * size, frame.height);
    node.style.width = percent(size, frame.width);
    node.style.height = percent(size, frame.height);
    for (const button of part("levels").children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.size) === size));
    }
    drawBars();
    drawDetail();
  }

  function drawBars() {
    const { size, row, col } = chosen, layer = layerAt(size), code = codeOf(layer, chosen);
    const place = `${size}x${size} at row ${row * size}, column ${col * size}`;
    const label = labelOf(layer, chosen), index = row * layer.cols + col;
    if (code === marks.absent) {
      const instead = label === marks.absent ? data.absent : `${data.absent}; true ${classes[label]}`;
      part("title").textContent = `${place}: ${instead}`;
      part("bars").replaceChildren();
      return;
    }
    const most = code & CLASS;
    part("title").textContent = `${place}${code & marks.drawn ? "" : " (not in the drawn tree)"}`;
    part("bars").replaceChildren(...(legal[size] || classes.map((_, i) => i)).map((of) => {
      const share = layer.share(index, of) / 2.55;
      const bar = document.createElement("div");
      bar.className = `viewer-bar${of === most ? " most" : ""}${of === label ? " true" : ""}`;
      const [name, cell, number] = ["span", "span", "span"].map((tag) => document.createElement(tag));
      const length = document.createElement("b");
      length.style.width = `${share}%`;
      cell.append(length);
      name.textContent = classes[of];
      if (tints.length) {
        const key = document.createElement("i");
        key.className = "key";
        key.style.background = tints[of].style.fill;
        name.prepend(key);
      }
      number.textContent = share > 0 && share < 1 ? "<1%" : `${Math.round(share)}%`;
      bar.append(name, cell, number);
      return bar;
    }));
  }

  function drawDetail() {
    const side = Math.max(64, chosen.size), zoom = detail.width / side;
    const size = chosen.size, from = (place, limit) =>
      Math.max(0, Math.min(Math.floor((place * size) / side) * side, limit - side));
    const top = from(chosen.row, frame.height), left = from(chosen.col, frame.width);
    const pen = detail.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.clearRect(0, 0, detail.width, detail.height);
    const width = Math.min(side, frame.width - left), height = Math.min(side, frame.height - top);
    pen.drawImage(image, left, top, width, height, 0, 0, width * zoom, height * zoom);
    const path = (rectanglesOf, step) => new Path2D(pathOf(rectanglesOf, step, [left, top, side]));
    const stroke = (lines, colour, thick) => {
      pen.strokeStyle = colour;
      pen.lineWidth = thick / zoom;
      pen.stroke(lines);
    };
    const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
    pen.save();
    pen.setTransform(zoom, 0, 0, zoom, -left * zoom, -top * zoom);
    if (shown("cuts")) {
      pen.globalAlpha = 0.42;
      tints.forEach((tint, i) => { pen.fillStyle = tint.style.fill; pen.fill(path(tinted(i), box)); });
      pen.globalAlpha = 1;
    }
    stroke(path(inTree, box), "#fff9", 1);
    if (shown("mark")) {
      pen.fillStyle = colour("--wrong");
      pen.fill(path(differing, corner));
    }
    if (shown("true")) stroke(path(actual, inner), colour("--true"), tints.length ? 2 : 7);
    if (shown("cuts")) {
      const lines = path(predicted, inner);
      stroke(lines, "#0008", 4);
      stroke(lines, colour("--cut"), 2);
    }
    pen.restore();
    const edge = [(chosen.col * size - left) * zoom, (chosen.row * size - top) * zoom, size * zoom, size * zoom];
    pen.lineWidth = 8; pen.strokeStyle = "#000a"; pen.strokeRect(...edge);
    pen.lineWidth = 4; pen.strokeStyle = colour("--node"); pen.strokeRect(...edge);
  }

  // Pointer and keys

  const middle = ({ size, row, col }) => [(row + 0.5) * size, (col + 0.5) * size];
  const same = (a, b) => a && b && a.size === b.size && a.row === b.row && a.col === b.col;

  function toSize(size, place = chosen && middle(chosen)) {
    const next = place && at(size, ...place);
    if (next) choose(next);
    else if (!chosen) choose(at(size, 0, 0));
    return Boolean(next);
  }

  function under(event, size) {
    const box = stage.getBoundingClientRect();
    const y = ((event.clientY - box.top) / box.height) * frame.height;
    const x = ((event.clientX - box.left) / box.width) * frame.width;
    return { found: at(size, y, x), place: [y, x] };
  }

  stage.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse" || !chosen) return;
    const { found } = under(event, chosen.size);
    if (found && !same(found, chosen)) choose(found);
  });
  stage.addEventListener("click", (event) => {
    if (!chosen) return;
    const { found, place } = under(event, chosen.size);
    const sizes = layers.map(({ size }) => size);
    const here = sizes.indexOf(chosen.size);
    const order = [...sizes.slice(here + 1), ...sizes.slice(0, here + 1)];
    if (found && !same(found, chosen)) choose(found);
    else order.some((size) => toSize(size, place));
  });
  stage.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const steps = { "+": 1, "=": 1, "-": -1, "−": -1 };
    if (!chosen || event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) {
      const [down, right] = moves[event.key], [y, x] = middle(chosen);
      const next = at(chosen.size, y + down * chosen.size, x + right * chosen.size);
      if (next) { choose(next); node.scrollIntoView({ block: "nearest", inline: "nearest" }); }
    } else if (steps[event.key]) {
      const sizes = layers.map(({ size }) => size);
      const size = sizes[sizes.indexOf(chosen.size) + steps[event.key]];
      const [y, x] = [chosen.row * chosen.size, chosen.col * chosen.size];
      if (size) toSize(size, [y, x]);
    } else return;
    event.preventDefault();
  });

  const failed = (error) => {
    part("error").textContent = `This browser cannot show the frames (${error.message}).`;
  };
  part("sequence").addEventListener("change", fillFrames);
  part("frame").addEventListener("change", fillQindexes);
  part("qindex").addEventListener("change", show);
  part("zoom").addEventListener("change", () => {
    stage.style.width = `${100 * Number(part("zoom").value)}%`;
    node.scrollIntoView({ block: "center", inline: "center" });
  });
  for (const name of ["cuts", "true", "mark"]) {
    part(`show-${name}`).addEventListener("change", () => { drawCuts(); if (chosen) drawDetail(); });
  }
  options(part("sequence"), data.sequences.map((_, i) => i), data.sequences.map((s) => s.name));
  fillFrames();
})();
