// Tokens of one or several tokenizers on one grapheme grid.
//
// A *cell* is the smallest run of graphemes whose two ends are also token ends in that row. Most cells hold
// one token. A cell with several tokens is a character (or a few) spread over them: it is shown whole, with
// its pieces below it, so that no fragment of a character is ever drawn.
(() => {
  const { h } = TL;
  const PAGE_TOKENS = 5000;
  const WIDE = /\p{Extended_Pictographic}|\p{Regional_Indicator}|\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}|[\u3000-\u303f\uff01-\uff60]/u;
  const BROAD = /\p{Script=Arabic}|\p{Script=Devanagari}|\p{Script=Bengali}|\p{Script=Gujarati}|\p{Script=Gurmukhi}|\p{Script=Ethiopic}|\p{Script=Thai}/u;
  const BROADER = /\p{Script=Tamil}|\p{Script=Telugu}|\p{Script=Kannada}|\p{Script=Malayalam}|\p{Script=Sinhala}|\p{Script=Khmer}|\p{Script=Myanmar}/u;
  const EMOJI_STYLE = /[\ufe0f\u20e3]/;
  const RTL = /\p{Script=Hebrew}|\p{Script=Arabic}|\p{Script=Syriac}|\p{Script=Thaana}|\p{Script=Nko}/u;
  const LTR = /\p{L}|\p{Nd}/u;
  const PLAIN = /^[\x20-\x7e]$/;
  const encoder = new TextEncoder();

  const byteLength = (grapheme) => (PLAIN.test(grapheme) ? 1 : encoder.encode(grapheme).length);

  const width = (grapheme) => {
    if (PLAIN.test(grapheme)) return 1;
    if (BROADER.test(grapheme)) return 3;
    if (WIDE.test(grapheme) || BROAD.test(grapheme) || EMOJI_STYLE.test(grapheme)) return 2;
    const name = TL.invisibleName(grapheme);
    return name !== null && name.length > 1 ? Math.max(2, Math.ceil(name.length * 0.7)) : 1;
  };

  // The cells of one row: {from, to} in graphemes, first and last token (first > last: dropped text).
  const cellsOf = (row, ends) => {
    const cells = [];
    let grapheme = 0, token = 0;
    while (grapheme < ends.length) {
      const from = grapheme, first = token;
      let reach = ends[grapheme];
      const begin = grapheme ? ends[grapheme - 1] : 0;
      if (token >= row.starts.length || row.starts[token] >= reach && row.starts[token] > begin) {
        cells.push({ from, to: ++grapheme, first, last: first - 1 });
        continue;
      }
      for (;;) {
        while (token < row.starts.length && (row.starts[token] < reach || row.ends[token] <= reach)) reach = Math.max(reach, row.ends[token++]);
        while (grapheme < ends.length && ends[grapheme] < reach) grapheme++;
        if (grapheme >= ends.length || ends[grapheme] === reach) break;
        reach = ends[grapheme];
      }
      grapheme = Math.min(grapheme + 1, ends.length);
      cells.push({ from, to: grapheme, first, last: token - 1 });
    }
    return cells;
  };

  // Per grapheme: how many rows end a cell there.
  const cutCounts = (rowCells, length) => {
    const counts = new Uint8Array(length + 1);
    for (const cells of rowCells) for (const cell of cells) counts[cell.to]++;
    return counts;
  };

  const pagesOf = (rows, rowCells, counts, length) => {
    const perGrapheme = new Float64Array(length + 1);
    for (const cells of rowCells) for (const cell of cells) perGrapheme[cell.to] += Math.max(1, cell.last - cell.first + 1);
    const pages = [0];
    let tokens = 0;
    for (let g = 1; g <= length; g++) {
      tokens += perGrapheme[g];
      if (tokens >= PAGE_TOKENS && counts[g] === rows.length && g < length) { pages.push(g); tokens = 0; }
    }
    return [...pages, length];
  };

  // "r", "l" or "" (neutral). Digits read from left to right even in right-to-left text.
  const directionOf = (grapheme) => (PLAIN.test(grapheme) ? (LTR.test(grapheme) ? "l" : "") : RTL.test(grapheme) && !/\p{Nd}/u.test(grapheme) ? "r" : LTR.test(grapheme) ? "l" : "");

  // Lines of at most `columns`, as [from, to, direction]: broken after a line feed and where the direction turns,
  // else at the last place that all rows cut.
  const linesOf = (graphemes, widths, counts, rows, from, to, columns) => {
    const lines = [];
    let start = from;
    while (start < to) {
      let used = 0, end = start, common = 0, direction = "", turned = false, feed = false;
      while (end < to && used + widths[end] <= columns && !feed) {
        const strong = directionOf(graphemes[end]);
        turned = strong !== "" && direction !== "" && strong !== direction;
        if (turned) break;
        direction = direction || strong;
        used += widths[end];
        feed = graphemes[end].includes("\n");
        if (counts[++end] === rows) common = end;
      }
      if (end === start) end = start + 1;
      const wrapped = end < to && !turned && !feed;
      const stop = wrapped && common > start + (end - start) * 0.6 ? common : end;
      lines.push([start, stop, direction]);
      start = stop;
    }
    return lines;
  };

  TL.views.TokenStrip = (root, value) => {
    const { graphemes, rows } = value;
    const lengths = graphemes.map(byteLength);
    const ends = new Array(graphemes.length);
    lengths.reduce((sum, n, i) => (ends[i] = sum + n), 0);
    const widths = graphemes.map(width);
    const rowCells = rows.map((row) => cellsOf(row, ends));
    const counts = cutCounts(rowCells, graphemes.length);
    // Yardsticks such as bytes cut everywhere: disagreement is among the others, when there are two.
    const judges = rows.map((row, r) => r).filter((r) => !rows[r].yardstick);
    const judged = judges.length > 1 ? judges : rows.map((row, r) => r);
    const judgedCounts = cutCounts(judged.map((r) => rowCells[r]), graphemes.length);
    const disputed = (g) => judgedCounts[g] > 0 && judgedCounts[g] < judged.length;
    const pages = pagesOf(rows, rowCells, counts, graphemes.length);
    const compare = rows.length > 1 && value.disagreements;
    let page = 0, showInvisible = root.tlInvisible === true, current = null, elements = [], lit = [];

    // Kept on the root, because each keystroke in a live panel draws a new strip.
    const whitespace = TL.toggle("Spaces and controls", showInvisible, (on) => { showInvisible = root.tlInvisible = on; draw(); });
    const body = TL.frame(root, value, whitespace);
    const pager = h("div", { class: "tl-pager" });
    const grid = h("div", { class: "tl-strip", role: "grid", "aria-label": value.alt });
    const details = h("div", { class: "tl-details", "aria-live": "polite" });
    const totals = h("p", { class: "tl-totals" }, rows.length > 1 ? rows.map((row) => h("span", {}, h("b", {}, (row.total ?? row.starts.length).toLocaleString("en-US")), ` ${row.name}`)) : null);
    body.append(totals, grid, pager, legend(), details);

    function legend() {
      const items = [];
      if (compare) items.push(h("span", {}, h("i", { class: "tl-tick", "aria-hidden": "true" }, "▾"), " a place that only some rows cut"));
      value.legend.forEach((name, i) => items.push(h("span", {}, h("i", { class: `tl-swatch mark-${i + 1}`, "aria-hidden": "true" }, "ab"), ` ${name}`)));
      const spread = rowCells.some((cells) => cells.some((cell) => cell.last > cell.first));
      if (spread) items.push(h("span", {}, h("i", { class: "tl-swatch spread", "aria-hidden": "true" }, "ab"), " one character spread over several tokens"));
      if (rowCells.some((cells) => cells.some((cell) => cell.last < cell.first))) items.push(h("span", {}, h("i", { class: "tl-swatch dropped", "aria-hidden": "true" }, "ab"), " text that this tokenizer drops"));
      return h("p", { class: "tl-legend" }, items);
    }

    const tokenText = (r, t) => {
      const row = rows[r];
      const bytes = encoder.encode(graphemes.slice(graphemeAt(row.starts[t]), graphemeAt(row.ends[t] - 1) + 1).join(""));
      const base = (graphemeAt(row.starts[t]) ? ends[graphemeAt(row.starts[t]) - 1] : 0);
      return bytes.slice(row.starts[t] - base, row.ends[t] - base);
    };

    // The grapheme that holds byte b.
    function graphemeAt(b) {
      let low = 0, high = ends.length - 1;
      while (low < high) { const middle = (low + high) >> 1; if (ends[middle] > b) high = middle; else low = middle + 1; }
      return low;
    }

    const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(" ");

    // Bytes as text where they are whole characters, else as escapes: never U+FFFD.
    const readable = (bytes) => {
      try { return TL.visible(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)); }
      catch { return Array.from(bytes, (b) => (b > 32 && b < 127 ? String.fromCharCode(b) : "\\x" + b.toString(16).padStart(2, "0"))).join(""); }
    };

    const fromHex = (text) => Uint8Array.from(text.match(/../g) || [], (pair) => parseInt(pair, 16));
    const tokenBytes = (r, t) => (rows[r].pieces[t] !== undefined ? fromHex(rows[r].pieces[t]) : tokenText(r, t));

    // Tokens of row r that touch bytes from..to.
    const touching = (r, from, to) => {
      const { starts, ends: stops } = rows[r], found = [];
      let low = 0, high = starts.length;
      while (low < high) { const middle = (low + high) >> 1; if (stops[middle] > from) high = middle; else low = middle + 1; }
      for (let t = low; t < starts.length && starts[t] < to; t++) found.push(t);
      return found;
    };

    function select(r, t) {
      if (current && current[0] === r && current[1] === t) return;
      current = [r, t];
      lit.forEach((node) => node.classList.remove("on", "peer"));
      lit = [];
      const row = rows[r], from = row.starts[t], to = row.ends[t];
      const light = (row_, token, name) => (elements[row_][token] || []).forEach((node) => { node.classList.add(name); lit.push(node); });
      light(r, t, "on");
      const others = rows.map((_, other) => (other === r ? [] : touching(other, from, to)));
      others.forEach((tokens, other) => tokens.forEach((token) => light(other, token, "peer")));
      const id = row.ids.length && row.ids[t] >= 0 ? `id ${row.ids[t]}` : "no id (open vocabulary)";
      const place = `bytes ${from}–${to}, characters ${graphemeAt(from) + 1}–${graphemeAt(Math.max(from, to - 1)) + 1}`;
      const facts = [id, hex(tokenBytes(r, t)) || "no bytes", place];
      if (row.marks.length && row.marks[t]) facts.unshift(value.legend[row.marks[t] - 1]);
      if (row.shades.length) facts.push(`value ${TL.number(row.shades[t])}`);
      if (row.details[t]) facts.push(row.details[t]);
      details.replaceChildren(
        h("p", { class: "tl-details-main" }, h("b", {}, row.name), ` token ${t + 1} of ${(row.total ?? row.starts.length).toLocaleString("en-US")} `, h("code", {}, readable(tokenBytes(r, t)) || "(empty)"), h("span", { class: "tl-facts" }, facts.join(" · "))),
        rows.length > 1 ? h("ul", {}, others.map((tokens, other) => other === r ? null : h("li", {}, h("b", {}, rows[other].name), " ", tokens.length ? tokens.slice(0, 12).map((token) => h("span", {}, h("code", {}, readable(tokenBytes(other, token)) || "(empty)"), rows[other].ids.length && rows[other].ids[token] >= 0 ? h("small", {}, ` ${rows[other].ids[token]} `) : " ")) : "drops this text", tokens.length > 12 ? ` and ${tokens.length - 12} more` : ""))) : "",
      );
    }

    function glyphs(from, to) {
      let plain = "";
      const parts = [];
      const flush = () => { if (plain) parts.push(plain); plain = ""; };
      for (let g = from; g < to; g++) {
        const grapheme = graphemes[g];
        if (PLAIN.test(grapheme) && !(showInvisible && grapheme === " ")) { plain += grapheme === " " ? "\u00a0" : grapheme; continue; }
        flush();
        const name = TL.invisibleName(grapheme);
        const shown = name === null ? grapheme : showInvisible || name === "↵" ? name : "\u00a0";
        parts.push(h("i", { class: name !== null ? (name.length > 1 ? "ctl named" : "ctl") : "gl", style: `width:calc(${widths[g]}*var(--tl-ch))` }, shown));
      }
      flush();
      return parts;
    }

    function cellNodes(r, cell, from, to) {
      const row = rows[r], a = Math.max(cell.from, from), b = Math.min(cell.to, to);
      let columns = 0;
      for (let g = a; g < b; g++) columns += widths[g];
      const style = `width:calc(${columns}*var(--tl-ch))`;
      const cut = cell.from > 0 && cell.from >= from && compare && disputed(cell.from) && judged.includes(r) ? " cut" : "";
      const open = (cell.from < from ? " from-before" : "") + (cell.to > to ? " goes-on" : "");
      if (cell.last < cell.first) return h("span", { class: `tl-tok dropped${cut}${open}`, style, role: "gridcell", "aria-label": "dropped" }, glyphs(a, b));
      const shade = row.shades.length ? `;--tl-shade:${row.shades[cell.first]}` : "";
      const mark = row.marks.length && row.marks[cell.first] ? ` mark-${row.marks[cell.first]}` : "";
      const remember = (token, node) => { (elements[r][token] = elements[r][token] || []).push(node); node.tlToken = [r, token]; return node; };
      if (cell.last === cell.first) {
        return remember(cell.first, h("span", { class: `tl-tok ${cell.first % 2 ? "odd" : "even"}${mark}${cut}${open}${shade ? " shaded" : ""}`, style: style + shade, role: "gridcell", tabindex: "-1" }, glyphs(a, b)));
      }
      const pieces = [];
      for (let t = cell.first; t <= cell.last; t++) pieces.push(remember(t, h("span", { class: "tl-piece", tabindex: "-1", "aria-label": `piece ${t - cell.first + 1} of ${cell.last - cell.first + 1}: ${hex(tokenBytes(r, t))}` })));
      return h("span", { class: `tl-tok spread${cut}${open}`, style, role: "gridcell" }, h("span", { class: "tl-whole" }, glyphs(a, b)), h("span", { class: "tl-pieces" }, pieces));
    }

    function ruler(from, to) {
      let at = 0;
      const ticks = [];
      for (let g = from; g < to; g++) {
        if (g > from && disputed(g)) ticks.push(h("i", { style: `inset-inline-start:calc(${at}*var(--tl-ch))` }, "▾"));
        at += widths[g];
      }
      return h("div", { class: "tl-ruler", "aria-hidden": "true" }, ticks);
    }

    function draw() {
      const started = performance.now();
      grid.replaceChildren();
      elements = rows.map(() => []);
      lit = [];
      current = null;
      const probe = h("span", { class: "tl-tok", style: "position:absolute;visibility:hidden" }, "0".repeat(50));
      grid.append(probe);
      const ch = probe.getBoundingClientRect().width / 50 || 8;
      probe.remove();
      grid.style.setProperty("--tl-ch", `${ch}px`);
      const narrow = grid.clientWidth < 560;
      grid.classList.toggle("narrow", narrow);
      const columns = Math.max(12, Math.floor((grid.clientWidth - (narrow || rows.length === 1 ? 4 : 124)) / ch) - 1);
      const fragment = document.createDocumentFragment();
      const pointers = rowCells.map((cells) => { let i = 0; while (i < cells.length && cells[i].to <= pages[page]) i++; return i; });
      for (const [from, to, direction] of linesOf(graphemes, widths, counts, rows.length, pages[page], pages[page + 1], columns)) {
        const line = h("div", { class: "tl-line", role: "rowgroup", dir: direction === "r" ? "rtl" : "ltr" });
        if (compare) line.append(ruler(from, to));
        rows.forEach((row, r) => {
          const cells = h("div", { class: "tl-cells" });
          const cellsOfRow = rowCells[r];
          while (pointers[r] < cellsOfRow.length && cellsOfRow[pointers[r]].from < to) {
            cells.append(cellNodes(r, cellsOfRow[pointers[r]], from, to));
            if (cellsOfRow[pointers[r]].to > to) break;
            pointers[r]++;
          }
          const wrap = h("div", { class: "tl-row", role: "row" });
          if (rows.length > 1) wrap.append(h("span", { class: "tl-row-name", role: "rowheader", title: row.name, dir: "ltr" }, row.name));
          cells.setAttribute("role", "presentation");
          wrap.append(cells);
          line.append(wrap);
        });
        fragment.append(line);
      }
      grid.append(fragment);
      if (!graphemes.length) grid.append(h("p", { class: "tl-empty" }, "The text is empty, so there is nothing to cut."));
      const entry = firstElement();
      if (entry) entry.tabIndex = 0;
      details.replaceChildren(h("p", { class: "tl-hint" }, graphemes.length ? "Point at a token, or move with the arrow keys, to read its id, its bytes and the same place in the other rows." : ""));
      drawPager();
      root.dataset.drawn = String(performance.now() - started);
    }

    function firstElement() {
      for (const row of elements) for (const nodes of row) if (nodes && nodes.length) return nodes[0];
      return null;
    }

    function drawPager() {
      if (pages.length < 3) { pager.replaceChildren(); return; }
      const go = (to) => { page = to; draw(); };
      pager.replaceChildren(
        TL.button("Previous page", () => go(page - 1), { disabled: page === 0 }),
        h("span", {}, ` Page ${page + 1} of ${pages.length - 1} `),
        TL.button("Next page", () => go(page + 1), { disabled: page === pages.length - 2 }),
      );
    }

    const tokenOf = (event) => event.target.closest && event.target.closest(".tl-tok, .tl-piece");
    const hover = (event) => {
      const node = tokenOf(event);
      if (!node) return;
      const token = node.tlToken || (node.querySelector(".tl-piece") || {}).tlToken;
      if (token) select(...token);
    };
    grid.addEventListener("pointerover", hover);
    grid.addEventListener("focusin", hover);
    grid.addEventListener("keydown", (event) => {
      const node = tokenOf(event);
      if (!node || !node.tlToken) return;
      const [r, t] = node.tlToken;
      let target = null;
      const step = (d) => { for (let k = t + d; k >= 0 && k < rows[r].starts.length; k += d) if (elements[r][k]) return [r, k]; return null; };
      if (event.key === "ArrowRight") target = step(1);
      else if (event.key === "ArrowLeft") target = step(-1);
      else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        const other = r + (event.key === "ArrowDown" ? 1 : -1);
        if (rows[other]) { const found = touching(other, rows[r].starts[t], rows[r].ends[t]).filter((k) => elements[other][k]); if (found.length) target = [other, found[0]]; }
      } else if (event.key === "Home") target = elements[r].findIndex(Boolean) >= 0 ? [r, elements[r].findIndex(Boolean)] : null;
      else if (event.key === "End") target = [r, elements[r].length - 1];
      else return;
      event.preventDefault();
      if (!target) return;
      const next = elements[target[0]][target[1]][0];
      grid.querySelectorAll('[tabindex="0"]').forEach((old) => { old.tabIndex = -1; });
      next.tabIndex = 0;
      next.focus();
    });

    draw();
    let width_ = grid.clientWidth;
    new ResizeObserver(() => { if (grid.isConnected && grid.clientWidth && grid.clientWidth !== width_) { width_ = grid.clientWidth; draw(); } }).observe(grid);
  };
})();
