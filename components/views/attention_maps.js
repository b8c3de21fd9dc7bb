// All heads of a model as small images, one of them large, and the text shaded by what a token looks at.
//
// A map travels as a grey PNG of 255 * sqrt(weight). Here it stays what it is, one byte per weight ("grey"), and is
// painted through a table of 256 colours made from the style sheet, so that it follows the theme.
(() => {
  const { h, SQUARE } = TL;
  const ROOMY = 14; // px per token with larger cells
  const TICKS = [0, 0.01, 0.1, 0.25, 0.5, 1];
  const RTL = /\p{Script=Hebrew}|\p{Script=Arabic}|\p{Script=Syriac}|\p{Script=Thaana}|\p{Script=Nko}/u;

  // The mean of several maps, weight by weight.
  const meanOf = (maps) => {
    const sum = new Float32Array(maps[0].length);
    for (const map of maps) for (let i = 0; i < sum.length; i++) sum[i] += SQUARE[map[i]];
    const grey = new Uint8Array(sum.length);
    for (let i = 0; i < grey.length; i++) grey[i] = Math.round(255 * Math.sqrt(sum[i] / maps.length));
    return grey;
  };

  // Cut between characters as people see them, so that none is torn apart.
  const segmenter = new Intl.Segmenter("en", { granularity: "grapheme" });
  const graphemes = (text) => (/^[\x20-\x7e]*$/.test(text) ? [...text] : Array.from(segmenter.segment(text), (part) => part.segment));

  // A token on one line: what cannot be seen is named. space: how a space is written.
  const readable = (text, space) => graphemes(text).map((grapheme) => {
    if (grapheme === " ") return space;
    const name = TL.invisibleName(grapheme);
    return name === null ? grapheme : name.length === 1 ? name : `⟨${name}⟩`;
  }).join("") || "∅";

  TL.views.AttentionMaps = (root, value) => {
    const started = performance.now();
    const { tokens, maps, marks } = value;
    const T = tokens.length, Q = value.queries, first = T - Q; // query row q is token first + q
    const layers = maps.length, heads = Math.max(...maps.map((line) => line.length));
    const measures = Object.keys(value.numbers);
    const named = tokens.map((text) => readable(text, "·"));
    const grey = new Map(); // "layer.head", "layer.mean" or "all.mean" -> one byte per weight
    const cells = []; // the small images: {key, layer, head, node, canvas, caption}
    let colours = null, thumb = 40, measure = "", order = "", inward = false, roomy = false;
    let chosen = T - 1, pinned = false, pointed = null; // pointed: [query, key] whose number is read
    let head = value.chosen.join(".");

    const nameOf = (key) => {
      const [layer, name] = key.split(".");
      if (layer === "all") return "Mean of all heads";
      return name === "mean" ? `Layer ${layer}, mean of its heads` : `Layer ${layer}, head ${name}`;
    };

    // A measure of one head, or the mean of the heads that a mean shows.
    const numberOf = (name, key) => {
      const [layer, index] = key.split(".");
      if (index !== "mean") return value.numbers[name][layer][index];
      const all = layer === "all" ? value.numbers[name].flat() : value.numbers[name][layer];
      return all.reduce((sum, v) => sum + v, 0) / all.length;
    };

    const weight = (q, k) => SQUARE[grey.get(head)[(q - first) * T + k]];

    // ---- what stands on the page

    const csv = TL.button("CSV", save, { title: "Download the weights of this head, a line for each token that looks; to within 0.004" });
    const body = TL.frame(root, value, csv);
    const grid = h("div", { class: "tl-am-grid", role: "listbox", "aria-label": "Heads" });
    const gridBox = h("div", { class: "tl-am-heads" }, grid);
    const direction = h("select", { onchange: () => { order = direction.value; arrange(); } }, [["", "by layer"], ["up", "lowest first"], ["down", "highest first"]].map(([key, name]) => h("option", { value: key }, name)));
    const orderBox = h("label", { hidden: true }, "Order ", direction);
    const colour = h("select", { onchange: () => { measure = colour.value; orderBox.hidden = !measure; if (!measure) order = direction.value = ""; arrange(); } }, h("option", { value: "" }, "none"), measures.map((name) => h("option", { value: name }, name)));
    const title = h("h4", {});
    const facts = h("dl", { class: "tl-am-facts" });
    const outwardButton = TL.button("What it looks at", () => turn(false), { "aria-pressed": "true" });
    const inwardButton = TL.button("What looks at it", () => turn(true), { "aria-pressed": "false" });
    const larger = TL.toggle("Larger cells", false, (on) => { roomy = on; paintMap(); showChosen(); });
    const strip = h("div", { class: "tl-am-strip", role: "listbox", "aria-label": "Tokens: the chosen one shades the others", dir: directionOf(tokens) });
    const reading = h("div", { class: "tl-am-reading", "aria-live": "polite" });
    const canvas = h("canvas", { role: "img", "aria-label": value.alt });
    const mapBox = h("div", { class: "tl-am-map", tabindex: "0", role: "region", "aria-label": "The weights of this head, tokens on both axes" }, h("div", {}, canvas));
    const bird = h("div", { class: "tl-am-bird" }, measures.length ? h("div", { class: "tl-am-tools" }, h("label", {}, "Number ", colour), orderBox) : null, gridBox);
    const one = h("div", { class: "tl-am-one" }, h("div", { class: "tl-am-title" }, title, h("div", { class: "tl-tools" }, outwardButton, inwardButton, larger)), facts, strip, reading, mapBox, legend());
    const frame = h("div", { class: "tl-am" }, bird, one);
    body.append(frame, definitions());

    const spans = tokens.map((text, t) => {
      const span = h("span", { class: `tl-am-token${marks[t] ? " marked" : ""}`, role: "option", tabindex: "-1", "aria-selected": "false" }, readable(text, "\u00a0"));
      span.tlToken = t;
      strip.append(span, ...(text.includes("\n") ? [h("br")] : []));
      return span;
    });

    for (let layer = 0; layer < layers; layer++) {
      for (let index = 0; index < maps[layer].length; index++) cells.push(cellOf(layer, index));
      if (heads > 1) cells.push(cellOf(layer, "mean"));
    }
    if (heads > 1 || layers > 1) cells.push(cellOf("all", "mean"));
    const cellAt = new Map(cells.map((cell) => [cell.key, cell]));
    if (cellAt.has(root.tlHead)) head = root.tlHead; // what was looked at stays when another text is drawn

    function cellOf(layer, index) {
      const key = `${layer}.${index}`;
      const small = h("canvas", { width: 1, height: 1, "aria-hidden": "true" }), caption = h("span", { class: "tl-am-caption" });
      const node = h("div", { class: "tl-am-cell", role: "option", tabindex: "-1", "aria-selected": "false", "aria-label": nameOf(key), title: nameOf(key) }, small, caption);
      node.tlHead = key;
      return { key, layer, index, node, canvas: small, caption };
    }

    function directionOf(texts) {
      const all = texts.join("");
      const letters = all.match(/\p{L}/gu) || [];
      return letters.filter((letter) => RTL.test(letter)).length * 2 > letters.length ? "rtl" : "ltr";
    }

    function legend() {
      const words = [...new Set(Object.values(marks))];
      const ticks = TICKS.map((w) => h("i", { style: `inset-inline-start:${100 * Math.sqrt(w)}%` }, String(w)));
      return h("div", { class: "tl-legend" }, h("span", { class: "tl-am-scale", role: "img", "aria-label": "Colours from no attention to all of it" }, h("b", {}), ticks), words.map((word) => h("span", {}, h("i", { class: "tl-am-sign", "aria-hidden": "true" }, "▾"), ` ${word}`)));
    }

    function definitions() {
      const known = Object.entries(value.help);
      return known.length ? h("details", { class: "tl-definitions" }, h("summary", {}, "What the numbers mean"), h("dl", {}, known.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]))) : "";
    }

    function save() {
      const map = grey.get(head);
      if (!map) return;
      const label = (t) => `${t + 1}: ${named[t]}`;
      const rows = Array.from({ length: Q }, (_, q) => [label(first + q), ...Array.from({ length: T }, (_, k) => (k > first + q ? null : Number(SQUARE[map[q * T + k]].toFixed(5))))]);
      TL.download(`attention-${head.replace(".", "-")}.csv`, TL.csv(["token that looks", ...tokens.map((_, t) => label(t))], rows), "text/csv");
    }

    // ---- the small images

    function arrange() {
      grid.replaceChildren();
      const sorted = order !== "";
      grid.classList.toggle("sorted", sorted);
      grid.classList.toggle("numbered", measure !== "");
      const columns = heads + (heads > 1 || layers > 1 ? 1 : 0);
      fit(columns);
      grid.style.setProperty("--tl-am-columns", String(columns));
      const corner = (text) => h("span", { class: "tl-am-axis", "aria-hidden": "true" }, text);
      if (sorted) {
        const ranked = cells.filter((cell) => cell.index !== "mean").map((cell) => [numberOf(measure, cell.key), cell]);
        ranked.sort(([a], [b]) => (order === "up" ? a - b : b - a));
        grid.append(...ranked.map(([, cell]) => cell.node));
      } else {
        grid.append(corner(""), ...Array.from({ length: heads }, (_, i) => corner(i ? String(i) : "head 0")), ...(columns > heads ? [corner("mean")] : []));
        for (let layer = 0; layer < layers; layer++) {
          grid.append(corner(layer ? String(layer) : "layer 0"));
          for (let i = 0; i < heads; i++) grid.append((cellAt.get(`${layer}.${i}`) || { node: corner("") }).node);
          if (columns > heads) grid.append((cellAt.get(`${layer}.mean`) || { node: corner("") }).node);
        }
        if (cellAt.has("all.mean")) grid.append(corner("mean"), ...Array.from({ length: heads }, () => corner("")), cellAt.get("all.mean").node);
      }
      const all = measure ? value.numbers[measure].flat() : [];
      const low = Math.min(...all), span = Math.max(...all) - low || 1;
      for (const cell of cells) {
        const number = measure ? numberOf(measure, cell.key) : null;
        cell.caption.textContent = number === null ? "" : TL.number(number);
        if (sorted) cell.caption.prepend(h("b", {}, `L${cell.layer}H${cell.index}`), " ");
        cell.caption.style.setProperty("--tl-shade", number === null ? "0" : String((number - low) / span));
        const told = number === null ? nameOf(cell.key) : `${nameOf(cell.key)}: ${measure} ${TL.number(number)}`;
        cell.node.setAttribute("aria-label", told);
        cell.node.title = told;
      }
      paintSmall();
    }

    // The side of a small image: what fits beside the large one, or the whole width where they stand below each other.
    function fit(columns) {
      const width = frame.clientWidth || 900;
      const stacked = width < 720;
      frame.classList.toggle("stacked", stacked);
      const room = (stacked ? width : 0.42 * width) - 52;
      const high = stacked ? 64 : Math.floor(720 / (layers + 1)) - 4;
      thumb = Math.max(30, Math.min(stacked ? 64 : 52, Math.floor(room / columns) - 4, high));
      if (measure) thumb = Math.max(thumb, 40);
      grid.style.setProperty("--tl-am-thumb", `${thumb}px`);
      grid.style.setProperty("--tl-am-width", stacked ? "100%" : `${columns * (thumb + 4) + 48}px`);
    }

    // Each pixel of a small image is the strongest weight of the cells that it stands for: a mean would hide thin lines.
    function paintSmall() {
      const pixels = Math.round(thumb * Math.min(2, window.devicePixelRatio || 1));
      const width = Math.min(T, pixels), height = Math.max(1, Math.min(Q, Math.round((width * Q) / T)));
      for (const cell of cells) {
        const map = grey.get(cell.key);
        if (!map) continue;
        const image = new ImageData(width, height), out = new Uint32Array(image.data.buffer);
        for (let y = 0; y < height; y++) {
          const top = Math.floor((y * Q) / height), bottom = Math.max(top + 1, Math.floor(((y + 1) * Q) / height));
          for (let x = 0; x < width; x++) {
            const left = Math.floor((x * T) / width), right = Math.max(left + 1, Math.floor(((x + 1) * T) / width));
            if (left > first + bottom - 1) continue; // not yet written when these tokens looked
            let most = 0;
            for (let q = top; q < bottom; q++) for (let k = left; k < right; k++) if (map[q * T + k] > most) most = map[q * T + k];
            out[y * width + x] = colours[most];
          }
        }
        cell.canvas.width = width;
        cell.canvas.height = height;
        cell.canvas.getContext("2d").putImageData(image, 0, 0);
      }
    }

    function chooseHead(key, focus) {
      if (cellAt.has(head)) cellAt.get(head).node.setAttribute("aria-selected", "false");
      cells.forEach((cell) => { cell.node.tabIndex = -1; });
      head = root.tlHead = key;
      const { node } = cellAt.get(key);
      node.setAttribute("aria-selected", "true");
      node.tabIndex = 0;
      if (focus) node.focus();
      title.textContent = nameOf(key);
      facts.replaceChildren(...measures.map((name) => h("div", { title: value.help[name] || null }, h("dt", {}, name), h("dd", {}, TL.number(numberOf(name, key))))));
      paintMap();
      shade();
    }

    // ---- the large map

    let layout = null; // sizes in px and colours
    let plain = null; // the map at one pixel per weight

    function paintMap() {
      const map = grey.get(head);
      if (!map) return;
      plain = h("canvas", { width: T, height: Q });
      const image = new ImageData(T, Q), out = new Uint32Array(image.data.buffer);
      for (let q = 0; q < Q; q++) for (let k = 0; k <= first + q; k++) out[q * T + k] = colours[map[q * T + k]];
      plain.getContext("2d").putImageData(image, 0, 0);
      const style = getComputedStyle(frame), width = mapBox.clientWidth || 320;
      const font = `${width < 420 ? 10 : 11}px ${style.getPropertyValue("--tl-mono")}`;
      const ruler = canvas.getContext("2d");
      ruler.font = font;
      const longest = Math.max(...named.map((text) => ruler.measureText(text).width));
      const gutter = Math.ceil(Math.min(width < 420 ? 52 : 84, longest + 20));
      const room = Math.max(80, width - gutter - 4);
      const even = room / T < 2 ? Math.max(1.5, room / T) : Math.floor(room / T);
      const cell = Math.max(Math.min(28, even), roomy ? ROOMY : 0);
      layout = { cell, left: gutter, top: gutter, font, ink: style.getPropertyValue("--tl-ink"), dim: style.getPropertyValue("--tl-ink-2"), accent: style.getPropertyValue("--tl-accent"), line: style.getPropertyValue("--tl-line") };
      // The canvas is as large as what can be seen of it and stays in place while the box around it scrolls.
      const ratio = window.devicePixelRatio || 1, sheet = canvas.parentNode;
      const wide = gutter + T * cell + 4, high = gutter + Q * cell + 4;
      canvas.style.width = canvas.style.height = "0";
      sheet.style.width = `${wide}px`;
      sheet.style.height = `${high}px`;
      layout.width = Math.min(wide, mapBox.clientWidth || wide);
      layout.height = Math.min(high, mapBox.clientHeight || high);
      canvas.width = Math.round(layout.width * ratio);
      canvas.height = Math.round(layout.height * ratio);
      canvas.style.width = `${layout.width}px`;
      canvas.style.height = `${layout.height}px`;
      paintOver();
    }

    // Which tokens get a label when there is not room for all: the chosen, the pointed at, the marked, then every n-th.
    function labelled(from, to, always) {
      const apart = Math.ceil(12 / layout.cell), shown = [];
      const fits = (t) => shown.every((other) => Math.abs(other - t) >= apart);
      const offer = (t) => { if (t >= from && t < to && fits(t)) shown.push(t); };
      always.filter((t) => t !== null).forEach(offer);
      Object.keys(marks).map(Number).forEach(offer);
      for (let t = from; t < to; t += apart) offer(t);
      return shown;
    }

    function paintOver() {
      if (!plain || !layout) return;
      const { cell, left, top, width, height, font, ink, dim, accent, line } = layout;
      const x = left - mapBox.scrollLeft, y = top - mapBox.scrollTop; // where the map begins
      const context = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
      const clipped = (draw, ...box) => { context.save(); context.beginPath(); context.rect(...box); context.clip(); draw(); context.restore(); };
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      const [query, key] = pointed || [null, null];
      clipped(() => {
        context.imageSmoothingEnabled = false;
        context.drawImage(plain, x, y, T * cell, Q * cell);
        context.strokeStyle = line;
        context.strokeRect(x - 0.5, y - 0.5, T * cell + 1, Q * cell + 1);
        context.strokeStyle = accent;
        context.lineWidth = 2;
        if (inward) context.strokeRect(x + chosen * cell - 1, y - 1, cell + 2, Q * cell + 2);
        else if (chosen >= first) context.strokeRect(x - 1, y + (chosen - first) * cell - 1, T * cell + 2, cell + 2);
        if (pointed) context.strokeRect(x + key * cell - 2, y + (query - first) * cell - 2, cell + 4, cell + 4);
      }, left - 2, top - 2, width, height);
      context.font = font;
      context.textBaseline = "middle";
      const fitted = (text) => {
        const room = left - 18;
        if (context.measureText(text).width <= room) return text;
        const short = graphemes(text).slice(0, 20);
        while (short.length && context.measureText(`${short.join("")}…`).width > room) short.pop();
        return `${short.join("")}…`;
      };
      // Rows end at the map, columns are turned and begin there; a marked token has a sign that points at it.
      const label = (t, now, side) => {
        context.fillStyle = now ? accent : marks[t] ? ink : dim;
        context.textAlign = side < 0 ? "right" : "left";
        context.fillText(fitted(named[t]), side * (marks[t] ? 14 : 5), 0);
        if (marks[t]) context.fillText(side < 0 ? "▸" : "◂", side * 3, 0);
      };
      const place = (t, across, draw) => {
        context.save();
        if (across) context.translate(x + (t + 0.5) * cell, top);
        else context.translate(left, y + (t - first + 0.5) * cell);
        draw();
        context.restore();
      };
      const rows = inward ? [query] : [query, chosen], columns = inward ? [key, chosen] : [key];
      clipped(() => labelled(first, T, rows).forEach((t) => place(t, false, () => label(t, rows.includes(t), -1))), 0, top - 6, left, height);
      clipped(() => labelled(0, T, columns).forEach((t) => place(t, true, () => { context.rotate(-Math.PI / 2); label(t, columns.includes(t), 1); })), left - 6, 0, width, top);
    }

    // With larger cells: bring the chosen row or column into sight.
    function showChosen() {
      if (!layout) return;
      const { cell, left, top } = layout;
      if (inward) mapBox.scrollLeft = left + chosen * cell - mapBox.clientWidth / 2;
      else mapBox.scrollTop = top + (chosen - first) * cell - mapBox.clientHeight / 2;
      paintOver();
    }

    // ---- the text

    // The weight that the chosen token and token t have to do with each other; null where one could not see the other.
    const between = (t) => {
      const [q, k] = inward ? [t, chosen] : [chosen, t];
      return q < first || k > q ? null : weight(q, k);
    };

    function shade() {
      if (!grey.has(head)) return;
      spans.forEach((span, t) => {
        const w = between(t);
        span.style.setProperty("--tl-shade", w === null ? "0" : Math.sqrt(w).toFixed(3));
        span.classList.toggle("unseen", w === null && t !== chosen);
        const on = t === chosen;
        if (on !== span.classList.contains("on")) { span.classList.toggle("on", on); span.setAttribute("aria-selected", String(on)); }
      });
      strip.classList.toggle("pinned", pinned);
      bring(chosen);
      if (!strip.contains(document.activeElement)) { spans.forEach((span) => { span.tabIndex = -1; }); spans[chosen].tabIndex = 0; }
      tell();
      paintOver();
    }

    function tell() {
      const code = (t) => h("code", {}, named[t]);
      const place = h("small", {}, ` token ${chosen + 1} of ${T}${marks[chosen] ? `, ${marks[chosen]}` : ""}${pinned ? ", held" : ""}`);
      const strongest = tokens.map((_, t) => [between(t), t]).filter(([w]) => w !== null && w >= 0.005).sort(([a], [b]) => b - a).slice(0, 6);
      const list = strongest.flatMap(([w, t]) => [h("span", {}, code(t), ` ${TL.number(Number(w.toFixed(3)))}`), " "]);
      const pair = pointed && h("p", {}, h("b", {}, weight(...pointed).toFixed(3)), " of the attention of ", code(pointed[0]), h("small", {}, ` ${pointed[0] + 1}`), " falls on ", code(pointed[1]), h("small", {}, ` ${pointed[1] + 1}`));
      const none = chosen < first && !inward ? "It did not look here: only the last tokens were asked." : "Nothing above 0.005.";
      reading.replaceChildren(
        h("p", {}, h("b", {}, code(chosen)), place, inward ? " is looked at by " : " looks at ", ...(list.length ? list : [none])),
        pair || h("p", { class: "tl-hint" }, pinned ? "Point at another token for its number; Enter, a click or Escape lets go." : "Point at a token or use the arrow keys. A click or Enter holds it."),
      );
    }

    // A long text scrolls inside its frame.
    function bring(t) {
      const top = spans[t].offsetTop, bottom = top + spans[t].offsetHeight;
      if (top < strip.scrollTop) strip.scrollTop = top - 4;
      else if (bottom > strip.scrollTop + strip.clientHeight) strip.scrollTop = bottom - strip.clientHeight + 4;
    }

    function choose(t) {
      pointed = null;
      chosen = t;
      shade();
    }

    // While a token is held, another one is only read against it.
    function read(t) {
      const [q, k] = inward ? [t, chosen] : [chosen, t];
      pointed = q < first || k > q ? null : [q, k];
      tell();
      paintOver();
    }

    function hold(t) {
      const release = pinned && t === chosen;
      pinned = !release;
      choose(t);
    }

    function turn(to) {
      inward = to;
      inwardButton.setAttribute("aria-pressed", String(to));
      outwardButton.setAttribute("aria-pressed", String(!to));
      choose(chosen);
      showChosen();
    }

    const tokenOf = (event) => { const span = event.target.closest(".tl-am-token"); return span ? span.tlToken : null; };
    strip.addEventListener("pointerover", (event) => {
      const t = tokenOf(event);
      if (t === null || event.pointerType === "touch") return; // a tap comes as a click
      if (pinned) read(t);
      else if (t !== chosen) choose(t);
    });
    strip.addEventListener("click", (event) => { const t = tokenOf(event); if (t !== null) { go(t); hold(t); } });
    strip.addEventListener("keydown", (event) => {
      const t = tokenOf(event);
      if (t === null) return;
      const step = strip.dir === "rtl" ? -1 : 1;
      let to = null;
      if (event.key === "ArrowRight") to = t + step;
      else if (event.key === "ArrowLeft") to = t - step;
      else if (event.key === "ArrowDown" || event.key === "ArrowUp") to = nextLine(t, event.key === "ArrowDown" ? 1 : -1);
      else if (event.key === "Home") to = 0;
      else if (event.key === "End") to = T - 1;
      else if (event.key === "Enter" || event.key === " ") hold(t);
      else if (event.key === "Escape" && pinned) { pinned = false; choose(t); }
      else return;
      event.preventDefault();
      if (to === null || !spans[to]) return;
      go(to);
      if (pinned) read(to);
      else choose(to);
    });

    function go(t) {
      spans.forEach((span) => { span.tabIndex = -1; });
      spans[t].tabIndex = 0;
      spans[t].focus({ preventScroll: true });
      bring(t);
    }

    // The token of the next or previous line that stands closest.
    function nextLine(t, step) {
      const here = spans[t].getBoundingClientRect(), middle = (here.left + here.right) / 2;
      let best = null, least = Infinity, line = null;
      for (let k = t + step; spans[k]; k += step) {
        const box = spans[k].getBoundingClientRect();
        if (Math.abs(box.top - here.top) < 4) continue;
        if (line === null) line = box.top;
        if (Math.abs(box.top - line) > 4) break;
        const distance = Math.abs((box.left + box.right) / 2 - middle);
        if (distance < least) { least = distance; best = k; }
      }
      return best;
    }

    // Weight under the pointer: [query, key], or null beside the map and in the future.
    const placeOf = (event) => {
      if (!layout) return null;
      const box = canvas.getBoundingClientRect();
      const right = event.clientX - box.left - layout.left, down = event.clientY - box.top - layout.top;
      if (right < 0 || down < 0) return null; // on the labels
      const k = Math.floor((right + mapBox.scrollLeft) / layout.cell), q = first + Math.floor((down + mapBox.scrollTop) / layout.cell);
      return q < T && k <= q ? [q, k] : null;
    };
    const overMap = (event) => {
      const place = placeOf(event);
      if (!place) return;
      if (!pinned) chosen = inward ? place[1] : place[0];
      pointed = place;
      shade();
    };
    canvas.addEventListener("pointermove", overMap);
    mapBox.addEventListener("scroll", () => paintOver());
    canvas.addEventListener("click", (event) => {
      const place = placeOf(event);
      if (!place) return;
      hold(inward ? place[1] : place[0]);
      pointed = place;
      shade();
    });

    grid.addEventListener("click", (event) => { const node = event.target.closest(".tl-am-cell"); if (node) chooseHead(node.tlHead, true); });
    grid.addEventListener("keydown", (event) => {
      const nodes = [...grid.querySelectorAll(".tl-am-cell")], at = nodes.findIndex((node) => node.tlHead === head);
      const to = TL.walk(event.key, nodes, at);
      if (to === undefined) return;
      event.preventDefault();
      if (to) chooseHead(to.tlHead, true);
    });

    // ---- the pixels arrive

    async function load() {
      colours = TL.ramp(frame);
      const [layer, index] = head.split(".");
      if (maps[layer] && maps[layer][index]) { // the large one need not wait for hundreds of others
        const [map] = await TL.greys([maps[layer][index]], T, Q);
        grey.set(`${layer}.${index}`, map);
        if (frame.isConnected) chooseHead(head);
      }
      const decoded = await TL.greys(maps.flat(), T, Q);
      if (!frame.isConnected) return;
      maps.flatMap((line, l) => line.map((_, i) => `${l}.${i}`)).forEach((key, i) => grey.set(key, decoded[i]));
      if (heads > 1) maps.forEach((line, l) => grey.set(`${l}.mean`, meanOf(line.map((_, i) => grey.get(`${l}.${i}`)))));
      if (cellAt.has("all.mean")) grey.set("all.mean", meanOf(decoded));
      paintSmall();
      if (!plain) chooseHead(head);
      root.dataset.drawn = String(performance.now() - started);
    }

    arrange();
    chooseHead(head);
    load().catch((error) => {
      console.error(error);
      body.append(h("p", { class: "tl-problem", role: "alert" }, "This view could not be drawn."));
    });

    const observer = new MutationObserver(() => {
      if (!frame.isConnected) { observer.disconnect(); return; }
      colours = TL.ramp(frame);
      paintSmall();
      paintMap();
    });
    observer.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    // The heads share the width with the map, so either may change alone.
    let widths = [frame.offsetWidth, mapBox.offsetWidth];
    const resized = new ResizeObserver(() => {
      const now = [frame.offsetWidth, mapBox.offsetWidth];
      if (!frame.isConnected || !now[0] || String(now) === String(widths)) return;
      if (now[0] !== widths[0]) arrange();
      widths = now;
      paintMap();
    });
    resized.observe(frame);
    resized.observe(mapBox);
  };
})();
