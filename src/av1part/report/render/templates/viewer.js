(() => {
  "use strict";
  const root = document.currentScript.closest(".viewer");
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const { types, rectangles, legal, marks } = data;
  const [stage, image, node, detail] = ["stage", "image", "node", "detail"].map(part);
  const TYPE = marks.drawn - 1;  // the bits of a type
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
      share: (index, type) => bytes[(2 + type) * plane + index],
    };
  }

  function options(select, values, texts) {
    const before = select.value;
    select.replaceChildren(...values.map((value, i) => new Option(texts[i], value)));
    if (values.map(String).includes(before)) select.value = before;
  }

  const sequence = () => data.sequences[Number(part("sequence").value)];

  function fillFrames() {
    const { frames, total } = sequence();
    options(part("frame"), frames.map((_, i) => i), frames.map((f) => `${f.number} (of ${total})`));
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
    drawCuts();
    choose(kept(chosen) || first());
    root.dataset.ready = `${part("sequence").value}/${part("frame").value}/${part("qindex").value}`;
  }

  function fillLevels() {
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
  const first = () => layers.map(({ size }) => at(size, 0, 0)).find(Boolean) || null;

  // Call `each` with the place and the side of every rectangle of the nodes that have a type.
  function eachRectangle(typeOf, each) {
    for (const { size, rows, cols, code, label } of layers) {
      for (let i = 0; i < rows * cols; i++) {
        const type = typeOf(code[i], label[i]);
        if (type === null) continue;
        const top = Math.floor(i / cols) * size, left = (i % cols) * size, unit = size / 4;
        for (const [row, col, height, width] of rectangles[type]) {
          each(left + col * unit, top + row * unit, width * unit, height * unit);
        }
      }
    }
  }

  const predicted = (code) => (code !== marks.absent && code & marks.drawn ? code & TYPE : null);
  const actual = (_, label) => (label === marks.absent ? null : label);
  const whole = types.indexOf("PARTITION_NONE");
  const differing = (code) => (code !== marks.absent && code & marks.differs ? whole : null);
  const shown = (name) => part(`show-${name}`).checked;

  function pathOf(typeOf) {
    const steps = [];
    eachRectangle(typeOf, (x, y, w, h) => steps.push(`M${x} ${y}h${w}v${h}h${-w}z`));
    return steps.join("");
  }

  function drawCuts() {
    const cuts = shown("cuts") ? pathOf(predicted) : "";
    part("casing").setAttribute("d", cuts);
    part("cuts").setAttribute("d", cuts);
    part("under").setAttribute("d", shown("true") ? pathOf(actual) : "");
    part("mask").setAttribute("d", shown("mark") ? pathOf(differing) : "");
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
      const instead = label === marks.absent ? "no prediction" : `no prediction; true ${types[label]}`;
      part("title").textContent = `${place}: ${instead}`;
      part("bars").replaceChildren();
      return;
    }
    const most = code & TYPE;
    part("title").textContent = `${place}${code & marks.drawn ? "" : " (not in the drawn tree)"}`;
    part("bars").replaceChildren(...legal[size].map((type) => {
      const share = layer.share(index, type) / 2.55;
      const bar = document.createElement("div");
      bar.className = `viewer-bar${type === most ? " most" : ""}${type === label ? " true" : ""}`;
      const [name, cell, number] = ["span", "span", "span"].map((tag) => document.createElement(tag));
      const length = document.createElement("b");
      length.style.width = `${share}%`;
      cell.append(length);
      name.textContent = types[type];
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
    const stroke = (typeOf, colour, thick) => {
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.beginPath();
      eachRectangle(typeOf, (x, y, w, h) => {
        if (x < left + side && y < top + side && x + w > left && y + h > top) {
          pen.rect((x - left) * zoom, (y - top) * zoom, w * zoom, h * zoom);
        }
      });
      pen.stroke();
    };
    const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
    if (shown("true")) stroke(actual, colour("--true"), 7);
    if (shown("cuts")) { stroke(predicted, "#0008", 4); stroke(predicted, colour("--cut"), 2); }
    const box = [(chosen.col * size - left) * zoom, (chosen.row * size - top) * zoom, size * zoom, size * zoom];
    pen.lineWidth = 8; pen.strokeStyle = "#000a"; pen.strokeRect(...box);
    pen.lineWidth = 4; pen.strokeStyle = colour("--node"); pen.strokeRect(...box);
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
