// Versions of one sound: to switch between while they play, to tell apart blindly, and to look at over one time axis.
// _player.js plays and counts; here everything is drawn. What was chosen stays in root.tlSounds when a run goes on and
// the view is drawn again.
(() => {
  const { h } = TL;
  const WAVE = 72, MEL = 150, AXIS = 20, FLAG = 7, ROW = 15, THICK = 26; // heights in px; a row of tokens is ROW to THICK
  const CLOSEST = 2000; // px a second at the highest zoom: a token of 1/75 s is then 27 px wide
  const AROUND = 0.06; // s heard before and after a token
  const LOUDER = 24; // dB at which the colours of a difference end
  const DRAG = 4; // px from which on a press is a drag
  const TRIALS = [1, 50];
  const LEVEL = 0.05; // of a test, only to word its outcome
  const HERTZ = [50, 100, 200, 500, 1000, 2000, 4000, 8000, 16000];
  const KEYS = "1234567890";
  const LOOKS = { first: "first version", chosen: "version heard", difference: "difference" };
  const HINT = "Point at a token, or tap it to hear it. With the keyboard: arrow keys in the picture, Enter plays a token.";
  const MEANINGS = {
    "switching": "All versions run at once and in step; a switch only moves their volumes, within 5 ms.",
    "loudness matched": "Each version is turned up or down until it is as loud as the first one: of two that differ only in loudness, the louder one sounds better.",
    "difference": "What the log-mel spectrogram of the version heard has more (or less) than that of the first one, in dB, band by band. It says nothing of phases.",
    "tokens": "One row per codebook (level), one cell per frame. Equal colours are equal codes; the colour has no other meaning. Pale levels were left out when this version was decoded.",
    "blind test": "ABX: X is A or B by the toss of a coin, anew in every trial. p is the chance to get at least so many right by guessing alone (one-sided binomial test).",
    "keys": "1 to 9 and 0: version. Space: play or pause. [ and ]: start and end of the loop at the cursor. L: loop. + and −: zoom. In the picture: left and right move the cursor by 0.1 s (with Shift by 0.01 s), up and down point at a band. In a blind test: A, B, X.",
  };

  const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
  const signed = (number) => TL.number(number || 0).replace("-", "−"); // || 0: there is no minus zero
  const clock = (seconds) => seconds.toFixed(2);
  const within = (x, low, high) => Math.max(low, Math.min(high, x));
  const flacUrl = (flac) => `data:audio/flac;base64,${flac}`;
  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  // A pen in CSS pixels on a canvas as sharp as the screen, emptied; null while it is not shown.
  const penOf = (canvas) => {
    const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    if (!box.width) return null;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    return { pen, width: box.width, height: box.height, ratio };
  };

  const styleOf = (name) => getComputedStyle(document.body).getPropertyValue(`--tl-${name}`).trim();
  const pixel = (r, g, b, a = 255) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;

  // 511 colours for the differences -255 to 255 of two grey values that are `range` dB apart from 0 to 255.
  const divergingOf = (range) => {
    const [minus, zero, plus] = ["minus", "zero", "plus"].map((name) => styleOf(`snd-${name}`).split(/\s+/).map(Number));
    return Uint32Array.from({ length: 511 }, (_, i) => {
      const share = within((((i - 255) / 255) * range) / LOUDER, -1, 1), end = share < 0 ? minus : plus;
      return pixel(...zero.map((from, c) => Math.round(from + Math.abs(share) * (end[c] - from))));
    });
  };

  // The colour of a code: hues a golden angle apart, so that neighbouring numbers differ.
  const colourOf = (code, dark, alpha) => {
    const hue = (code * 137.508) % 360, light = (dark ? 0.42 : 0.5) + 0.1 * (code % 3);
    const part = (n) => {
      const k = (n + hue / 30) % 12;
      return Math.round(255 * (light - 0.55 * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    };
    return pixel(part(0), part(8), part(4), alpha);
  };

  // A canvas of one pixel per cell. colour(row, column): as of `pixel`.
  const gridOf = (rows, columns, colour) => {
    const canvas = h("canvas", { width: columns, height: rows }), pen = canvas.getContext("2d"), image = pen.createImageData(columns, rows);
    const out = new Uint32Array(image.data.buffer);
    for (let r = 0, i = 0; r < rows; r++) for (let c = 0; c < columns; c++, i++) out[i] = colour(r, c);
    pen.putImageData(image, 0, 0);
    return canvas;
  };

  const greyOf = async (png) => {
    const image = await TL.image(png), width = image.naturalWidth, height = image.naturalHeight;
    const [bytes] = await TL.greys([png], width, height);
    return { width, height, bytes };
  };

  // Which of the frequencies worth a label lie where: [Hz, share of the height from the top].
  const ticksOf = (hertz) => HERTZ.filter((f) => f >= hertz[0] && f <= hertz[hertz.length - 1]).map((f) => {
    const above = hertz.findIndex((centre) => centre >= f), below = Math.max(0, above - 1);
    const part = above === below ? 0 : (f - hertz[below]) / (hertz[above] - hertz[below]);
    return [f, 1 - (below + part + 0.5) / hertz.length];
  });

  const heardIn = (track, level) => !track.heard.length || track.heard.includes(level);

  // The same sound, drawn again: everything stays. Another one: only the switches do.
  const stateOf = (root, value) => {
    const fresh = () => ({ sound: value.tracks[0].flac, zoom: 1, from: 0, cell: null, band: null, blind: null, over: null, focus: null });
    const state = (root.tlSounds = root.tlSounds || { player: TL.player(), chosen: null, look: "chosen", trials: 10, picks: {}, coin: TL.coin, mels: new Map() });
    if (state.sound !== value.tracks[0].flac) { state.player.reset(); Object.assign(state, fresh()); }
    const named = value.tracks.findIndex((track) => track.name === state.chosen);
    state.player.chosen = named < 0 ? value.chosen : named;
    return state;
  };

  TL.views.Sounds = (root, value) => {
    if (!value.tracks.length) {
      if (root.tlSounds) root.tlSounds.player.stop();
      TL.frame(root, value).append(h("p", { class: "tl-empty" }, "There is nothing to hear yet."));
      root.dataset.drawn = "1";
      return;
    }
    const { tracks, seconds } = value;
    const state = stateOf(root, value), { player } = state;
    const range = value.db[1] - value.db[0];
    const nameOf = (i) => TL.visibleInTable(tracks[i].name);
    const indexOf = (track) => tracks.findIndex((one) => one.name === track.name && one.flac === track.flac);
    const deepest = Math.max(0, ...value.tokens.map((spec) => spec.ids.length));
    const stripHeight = deepest ? Math.max(THICK, ROW * deepest) : 0;
    let drawings = {}; // small canvases by what they show, until the colours change

    // A test goes on only with the very same two versions.
    const test = () => state.blind;
    if (test() && (indexOf(test().a) < 0 || indexOf(test().b) < 0)) leaveTest();
    const shown = () => (test() ? 0 : player.chosen); // what the pictures show: in a test nothing that gives X away
    const silent = () => tracks.every((_, i) => player.failed(i)); // then versions can still be looked at
    const locked = (i) => player.failed(i) && !silent();
    const specOf = (i) => value.tokens[tracks[i].tokens] || null;

    // ---- what stands on the page

    const mark = (name, node) => { node.dataset.snd = name; return node; };
    const button = (name, label, onclick, attributes) => mark(name, TL.button(label, onclick, attributes));
    const play = button("play", "", () => (player.playing ? player.pause() : player.play()), { class: "tl-button tl-snd-play", "aria-keyshortcuts": "Space" });
    const loop = mark("loop", TL.toggle("Loop", player.loop, (on) => player.setLoop(on)));
    const match = mark("match", TL.toggle("Loudness matched", player.matched, (on) => player.match(on)));
    const time = h("span", { class: "tl-snd-time" });
    const starts = button("starts", "[", () => player.startHere(), { "aria-label": "The loop starts at the cursor", title: "The loop starts at the cursor (key [)" });
    const ends = button("ends", "]", () => player.endHere(), { "aria-label": "The loop ends at the cursor", title: "The loop ends at the cursor (key ])" });
    const clear = button("clear", "Clear region", () => { player.clearRegion(); starts.focus(); });
    const bar = h("div", { class: "tl-snd-bar", role: "group", "aria-label": "Player" }, play, time, loop, h("span", { class: "tl-snd-pair" }, starts, ends), clear, match);

    const buttons = tracks.map((_, i) => button(`track ${tracks[i].name}`, [i < KEYS.length ? h("kbd", {}, KEYS[i]) : null, nameOf(i)].filter(Boolean), () => choose(i), { class: "tl-button tl-snd-track", "aria-pressed": "false", "aria-keyshortcuts": KEYS[i] || null }));
    const list = h("ul", { class: "tl-snd-tracks", "aria-label": "Versions" }, buttons.map((one, i) => h("li", {}, one, TL.button("↓", () => save(i), { class: "tl-button tl-snd-save", "aria-label": `Download ${nameOf(i)} as FLAC`, title: "Download as FLAC" }))));
    const facts = h("div", { class: "tl-snd-facts" }, tracks.map((track) => h("div", {}, TL.facts(track.facts))));
    const versions = h("div", {}, list, facts);
    const blind = h("div", { class: "tl-snd-blind" });
    const plain = h("div", { class: "tl-snd-plain" });
    const live = h("p", { class: "tl-snd-live", role: "status" });

    const looks = Object.entries(LOOKS).map(([look, label]) => button(`look ${look}`, label, () => { state.look = look; refresh(); }, { "data-look": look, "aria-pressed": "false" }));
    const lookGroup = h("span", { class: "tl-snd-pair", role: "group", "aria-label": "Spectrogram" }, looks);
    const zooms = h("span", { class: "tl-snd-pair", role: "group", "aria-label": "Zoom" },
      button("out", "−", () => zoom(state.zoom / 2), { "aria-label": "Zoom out" }), button("in", "+", () => zoom(state.zoom * 2), { "aria-label": "Zoom in" }), button("all", "All", () => zoom(1), { "aria-label": "Zoom out to the whole sound" }));
    const legend = h("p", { class: "tl-legend tl-snd-legend" });

    const canvas = (height) => h("canvas", { "aria-hidden": "true", style: `height:${height}px` });
    const wave = canvas(WAVE), mel = canvas(MEL), axis = canvas(AXIS), strip = canvas(FLAG + stripHeight);
    const region = h("i", { class: "tl-snd-region", hidden: true }), now = h("i", { class: "tl-snd-now" }), cell = h("i", { class: "tl-snd-cell", hidden: true });
    const stage = mark("stage", h("div", { class: "tl-snd-stage", tabindex: "0", role: "slider", "aria-label": "Position in the sound, over its wave and spectrogram", "aria-valuemin": "0", "aria-valuemax": seconds.toFixed(2) }, wave, mel, axis, region));
    const cells = deepest ? mark("tokens", h("div", { class: "tl-snd-tokens", tabindex: "0", role: "application", "aria-roledescription": "token strip", "aria-label": "Tokens, one row per level. Arrow keys move from token to token, Enter plays one." }, strip, cell)) : null;
    const pane = h("div", { class: "tl-snd-pane" }, stage, cells, now);
    const scroll = h("div", { class: "tl-snd-scroll" }, pane);
    const gutter = h("div", { class: "tl-snd-y", "aria-hidden": "true" });
    const details = h("div", { class: "tl-snd-said", "aria-live": "polite" }, h("p", { class: "tl-hint" }, HINT));
    const pictures = h("div", { class: "tl-snd-pictures", role: "group", "aria-label": value.alt }, gutter, scroll);

    const body = TL.frame(root, value);
    const section = body.parentElement;
    body.append(bar, plain, versions, blind, h("div", { class: "tl-snd-looks" }, lookGroup, zooms), pictures, legend, details, live, definitions());

    function definitions() {
      return h("details", { class: "tl-definitions" }, h("summary", {}, "What this shows, and the keys"), h("dl", {}, Object.entries(MEANINGS).flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));
    }

    function save(i) {
      TL.download(`${[slug(value.title), slug(tracks[i].name) || i + 1].join("-")}.flac`, TL.bytes(tracks[i].flac), "audio/flac");
    }

    // ---- choosing

    function choose(i) {
      if (test() || locked(i)) return;
      state.chosen = tracks[i].name;
      player.choose(i);
      live.textContent = `Now: ${nameOf(i)}`;
      tellCell();
    }

    // Everything but the pictures' pixels follows from the state.
    function refresh() {
      const on = player.playing, testing = Boolean(test());
      play.replaceChildren(h("i", { "aria-hidden": "true" }, on ? "❚❚ " : "▶ "), on ? "Pause" : "Play");
      bar.hidden = silent();
      loop.setAttribute("aria-pressed", String(player.loop));
      match.setAttribute("aria-pressed", String(player.matched));
      match.disabled = testing;
      clear.hidden = !player.region;
      clear.title = player.region ? `The loop: ${player.region.map(clock).join(" to ")} s` : "";
      versions.hidden = lookGroup.hidden = details.hidden = testing;
      if (cells) cells.hidden = testing;
      buttons.forEach((one, i) => { one.setAttribute("aria-pressed", String(i === player.chosen && !testing)); one.disabled = locked(i); });
      [...facts.children].forEach((one, i) => one.classList.toggle("on", i === player.chosen));
      for (const one of looks) one.setAttribute("aria-pressed", String(one.dataset.look === state.look));
      for (const one of blind.querySelectorAll("[data-hears]")) one.setAttribute("aria-pressed", String(one.dataset.hears === state.hears));
      showRegion();
      showTime();
      paint();
      paintGutter();
    }

    function showRegion(ends = player.region) {
      region.hidden = !ends;
      if (ends) region.style.cssText = `left:${(100 * ends[0]) / seconds}%;width:${(100 * (ends[1] - ends[0])) / seconds}%`;
      region.classList.toggle("off", !player.loop);
    }

    function showTime() {
      const at = player.position();
      time.textContent = `${clock(at)} / ${clock(seconds)} s`;
      now.style.left = `${(100 * at) / seconds}%`;
      if (player.playing) return; // a screen reader would read every step
      stage.setAttribute("aria-valuenow", at.toFixed(2));
      stage.setAttribute("aria-valuetext", `${clock(at)} of ${clock(seconds)} seconds${state.band === null ? "" : `, ${melAt(state.band, at)}`}`);
    }

    // While it plays. Once the cursor leaves what is in sight, the pictures turn a page; they never glide.
    let following = false;
    function follow() {
      following = section.isConnected && player.playing;
      if (!following) return;
      const before = Number(now.dataset.at || 0), at = player.position(), [from, to] = sight();
      now.dataset.at = at;
      if (before >= from && before <= to && (at < from || at > to)) look(at - 0.05 * (to - from));
      showTime();
      if (calm()) setTimeout(follow, 250);
      else requestAnimationFrame(follow);
    }

    player.node = section;
    player.onchange = () => {
      if (!following) follow();
      refresh();
    };

    // ---- the time in sight

    const sight = () => [state.from, Math.min(seconds, state.from + seconds / state.zoom)];
    const most = () => Math.max(1, (CLOSEST * seconds) / (scroll.clientWidth || 1));
    const timeAt = (event) => {
      const box = pane.getBoundingClientRect();
      return within(((event.clientX - box.left) / box.width) * seconds, 0, seconds);
    };

    function look(from) {
      state.from = within(from, 0, seconds - seconds / state.zoom);
      scroll.scrollLeft = (state.from / seconds) * scroll.clientWidth * state.zoom;
      paint();
    }

    // anchor: the second that stays where it is on the screen; by default the cursor, when it is in sight.
    function zoom(to, anchor = null) {
      const [from, end] = sight(), at = player.position();
      const fixed = anchor !== null ? anchor : at >= from && at <= end ? at : (from + end) / 2;
      const share = ((fixed - from) / seconds) * state.zoom;
      state.zoom = within(to, 1, most());
      lay(fixed - (share * seconds) / state.zoom);
    }

    function lay(from = state.from) {
      const width = scroll.clientWidth;
      if (!width) return;
      state.zoom = within(state.zoom, 1, most());
      pane.style.width = `${width * state.zoom}px`;
      for (const one of [wave, mel, axis, strip]) one.style.width = `${width}px`;
      scroll.classList.toggle("zoomed", state.zoom > 1);
      look(from);
    }

    // ---- painting

    function paint() {
      if (!scroll.clientWidth) return;
      paintWave();
      paintMel();
      paintAxis();
      if (cells) paintTokens();
    }

    // The least and the greatest sample behind each column of the screen.
    function paintWave() {
      const at = penOf(wave);
      if (!at) return;
      const { pen, width, height, ratio } = at, [from, to] = sight(), columns = Math.round(width * ratio);
      const full = Math.max(1e-4, ...tracks.map((_, i) => player.peak(i)));
      const layers = shown() === 0 ? [[0, "accent", 1]] : [[0, "ink-2", 0.4], [shown(), "accent", 0.85]];
      pen.fillStyle = styleOf("line");
      pen.fillRect(0, height / 2, width, 1);
      for (const [i, colour, alpha] of layers) {
        const samples = player.samples(i);
        if (!samples) continue;
        const scale = ((height / 2 - 1) / full) * (player.matched ? tracks[i].gain : 1);
        const start = from * player.rate, step = ((to - from) * player.rate) / columns;
        pen.fillStyle = styleOf(colour);
        pen.globalAlpha = alpha;
        for (let c = 0; c < columns; c++) {
          const first = Math.floor(start + c * step), last = Math.min(samples.length, Math.max(first + 2, Math.ceil(start + (c + 1) * step)));
          let low = Infinity, high = -Infinity;
          for (let s = first; s < last; s++) { if (samples[s] < low) low = samples[s]; if (samples[s] > high) high = samples[s]; }
          if (high >= low) pen.fillRect(c / ratio, height / 2 - high * scale, 1 / ratio, Math.max((high - low) * scale, 1 / ratio));
        }
      }
      pen.globalAlpha = 1;
    }

    // Which spectrogram: the first version alone, the chosen one alone, or the chosen one less the first.
    const lookNow = () => (test() ? "first" : shown() === 0 && state.look === "chosen" ? "first" : state.look);
    const melOf = (i) => state.mels.get(tracks[i].mel) || null;

    const once = (key, make) => (drawings[key] = drawings[key] || make());

    function melGrid() {
      const kind = lookNow(), own = melOf(kind === "first" ? 0 : shown()), first = melOf(0);
      if (!own || !first) return null;
      if (kind !== "difference") return once(`mel ${kind} ${shown()}`, () => { const colours = TL.ramp(document.body); return gridOf(own.height, own.width, (r, c) => colours[own.bytes[r * own.width + c]]); });
      return once(`mel difference ${shown()}`, () => {
        const colours = divergingOf(range), columns = Math.min(own.width, first.width);
        return gridOf(own.height, columns, (r, c) => colours[own.bytes[r * own.width + c] - first.bytes[r * first.width + c] + 255]);
      });
    }

    // A grid of `rate` columns a second, cut to the time in sight.
    function spread(pen, grid, rate, top, width, height) {
      const [from, to] = sight();
      pen.drawImage(grid, from * rate, 0, (to - from) * rate, grid.height, 0, top, width, height);
    }

    function paintMel() {
      const at = penOf(mel), grid = melGrid();
      if (!at || !grid) return;
      const [from, to] = sight();
      at.pen.imageSmoothingEnabled = (to - from) * value.mel_rate > at.width; // whole columns would drop out
      spread(at.pen, grid, value.mel_rate, 0, at.width, at.height);
    }

    function paintAxis() {
      const at = penOf(axis);
      if (!at) return;
      const { pen, width } = at, [from, to] = sight(), room = 64;
      const rough = ((to - from) * room) / width, ten = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((k) => k * ten).find((x) => x >= rough), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
      pen.font = `11px ${styleOf("sans")}`;
      pen.textBaseline = "top";
      for (let k = Math.ceil(from / step - 1e-9); k * step <= to + 1e-9; k++) {
        const x = ((k * step - from) / (to - from)) * width, label = `${(k * step).toFixed(digits)} s`;
        pen.fillStyle = styleOf("ink-2");
        pen.fillRect(Math.min(x, width - 1), 0, 1, 4);
        pen.textAlign = x < 16 ? "left" : x > width - 16 ? "right" : "center";
        pen.fillText(label, x, 6);
      }
    }

    const rowOf = (spec) => Math.min(THICK, stripHeight / spec.ids.length);

    function paintTokens() {
      const at = penOf(strip), i = shown(), spec = specOf(i);
      if (!at) return;
      const { pen, width } = at, [from, to] = sight();
      if (!spec) {
        pen.fillStyle = styleOf("ink-2");
        pen.font = `13px ${styleOf("sans")}`;
        pen.fillText("This version was not decoded from tokens.", 4, FLAG + 16);
        return;
      }
      const row = rowOf(spec), levels = spec.ids.length, frames = spec.ids[0].length, dark = TL.dark();
      const grid = once(`tokens ${i}`, () => gridOf(levels, frames, (l, f) => colourOf(spec.ids[l][f], dark, heardIn(tracks[i], l) ? 255 : 50)));
      const wide = width / ((to - from) * spec.rate), end = Math.min(width, (frames / spec.rate - from) * wide * spec.rate);
      pen.imageSmoothingEnabled = false;
      spread(pen, grid, spec.rate, FLAG, width, row * levels);
      pen.fillStyle = styleOf("paper");
      for (let l = 1; l < levels; l++) pen.fillRect(0, FLAG + l * row - 0.5, width, 1);
      if (wide >= 6) for (let f = Math.ceil(from * spec.rate); f <= to * spec.rate; f++) pen.fillRect((f - from * spec.rate) * wide - 0.5, FLAG, 1, row * levels);
      pen.fillStyle = styleOf("ink");
      for (const frame of Object.keys(spec.marks)) {
        const x = (Number(frame) - from * spec.rate) * wide;
        if (x > -wide && x < end) pen.fillRect(x, 1, Math.max(2, wide - 1), FLAG - 3);
      }
    }

    function paintGutter() {
      const i = shown(), spec = cells && !test() ? specOf(i) : null;
      const label = (text, top, attributes) => h("span", { style: `top:${top}px`, ...attributes }, text);
      let lowest = Infinity;
      const tall = ticksOf(value.hertz).map(([f, share]) => [f, WAVE + share * MEL]).filter(([, top]) => (lowest - top >= 14 && top > WAVE + 16 ? ((lowest = top), true) : false));
      gutter.replaceChildren(label("wave", WAVE / 2), label("Hz", WAVE + 6), ...tall.map(([f, top]) => label(f >= 1000 ? `${f / 1000}k` : String(f), top)),
        ...(spec ? spec.ids.map((_, l) => label(String(l + 1), WAVE + MEL + AXIS + FLAG + (l + 0.5) * rowOf(spec), { class: heardIn(tracks[i], l) ? null : "off" })) : []));
      const scale = (kind, low, high) => h("span", {}, `${low} `, h("i", { class: `tl-snd-scale ${kind}`, "aria-hidden": "true" }), ` ${high}`);
      const difference = lookNow() === "difference", end = Math.min(LOUDER, range);
      const words = spec ? [...new Set(Object.values(spec.marks))] : [];
      legend.replaceChildren(
        difference ? scale("both", `−${end} dB, weaker than the first`, `+${end} dB, stronger`) : scale("one", `${signed(value.db[0])} dB`, `${signed(value.db[1])} dB`),
        ...(shown() === 0 || !player.samples(0) ? [] : [h("span", {}, h("i", { class: "tl-snd-sign first", "aria-hidden": "true" }), " wave of the first version")]),
        ...words.map((word) => h("span", {}, h("i", { class: "tl-snd-sign mark", "aria-hidden": "true" }), ` ${TL.visibleInTable(word)}`)),
        ...(spec && spec.ids.some((_, l) => !heardIn(tracks[i], l)) ? [h("span", {}, h("s", {}, "level"), " left out here")] : []));
    }

    // ---- reading

    // What the spectrograms say of a band at a time.
    function melAt(band, at) {
      const db = (i) => {
        const one = melOf(i), column = one ? Math.min(one.width - 1, Math.floor(at * value.mel_rate)) : 0;
        return one ? value.db[0] + (one.bytes[(one.height - 1 - band) * one.width + column] / 255) * range : null;
      };
      const [first, own] = [db(0), db(shown())], level = (x) => `${signed(Math.round(x))} dB`;
      const parts = [`${TL.number(Math.round(value.hertz[band]))} Hz`];
      if (own !== null) parts.push(level(own));
      if (own !== null && first !== null && shown() !== 0) parts.push(`first version ${level(first)}`, `difference ${Math.round(own - first) > 0 ? "+" : ""}${level(own - first)}`);
      return parts.join(" · ");
    }

    const say = (...children) => details.replaceChildren(h("p", {}, ...children));
    const sayBand = (band, at) => say(h("b", {}, `${clock(at)} s`), ` · ${melAt(band, at)}`);

    function tellCell() {
      const spec = specOf(shown());
      cell.hidden = !spec || !state.cell;
      if (cell.hidden) { if (state.cell) details.replaceChildren(h("p", { class: "tl-hint" }, "This version was not decoded from tokens.")); return; }
      const frames = spec.ids[0].length, level = Math.min(state.cell[0], spec.ids.length - 1), frame = Math.min(state.cell[1], frames - 1), code = spec.ids[level][frame];
      const row = rowOf(spec), wide = 100 / (seconds * spec.rate);
      cell.style.cssText = `left:${frame * wide}%;width:${wide}%;top:${FLAG + level * row}px;height:${row}px`;
      const seen = spec.seen.length ? spec.seen[level][frame] : null, share = (100 * seen) / spec.counted;
      const common = seen === null ? null : seen ? `came up ${seen === 1 ? "once" : `${TL.number(seen)} times`} in ${TL.number(spec.counted)} held-out tokens of this level (${TL.number(Number(share.toPrecision(2)))} %)` : `never came up in ${TL.number(spec.counted)} held-out tokens of this level`;
      const notes = [spec.marks[frame] ? TL.visibleInTable(spec.marks[frame]) : null, `${TL.number(Number(Math.log2(spec.sizes[level]).toPrecision(3)))} bits`, common, heardIn(tracks[shown()], level) ? null : "left out of this version"];
      say(h("b", {}, `Code ${code}`), ` of ${TL.number(spec.sizes[level])} · level ${level + 1}, frame ${frame + 1} · ${(frame / spec.rate).toFixed(3)} to ${((frame + 1) / spec.rate).toFixed(3)} s`, h("span", { class: "tl-facts" }, notes.filter(Boolean).join(" · ")));
    }

    function point(level, frame) {
      const spec = specOf(shown());
      if (!spec) { state.cell = [0, 0]; tellCell(); return; }
      state.cell = [within(level, 0, spec.ids.length - 1), within(frame, 0, spec.ids[0].length - 1)];
      tellCell();
    }

    function hearCell() {
      const spec = specOf(shown());
      if (spec && state.cell) player.hear(state.cell[1] / spec.rate - AROUND, (state.cell[1] + 1) / spec.rate + AROUND);
    }

    // Scrolls a time into sight.
    function bring(at) {
      const [from, to] = sight();
      if (at < from || at > to) look(at - 0.2 * (to - from));
    }

    // ---- pointer and keys in the pictures

    const bandAt = (event) => {
      const box = mel.getBoundingClientRect(), share = (event.clientY - box.top) / box.height;
      return share < 0 || share >= 1 ? null : within(Math.floor((1 - share) * value.hertz.length), 0, value.hertz.length - 1);
    };
    let press = null; // {x, at, dragged}

    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      press = { x: event.clientX, at: timeAt(event), dragged: false };
      if (event.pointerType === "mouse") stage.setPointerCapture(event.pointerId);
      state.band = bandAt(event);
    });
    stage.addEventListener("pointermove", (event) => {
      if (press && Math.abs(event.clientX - press.x) > DRAG) press.dragged = true;
      if (press && press.dragged) { const other = timeAt(event); showRegion([Math.min(press.at, other), Math.max(press.at, other)]); return; }
      const band = test() ? null : bandAt(event);
      if (band !== null) sayBand(band, timeAt(event));
    });
    stage.addEventListener("pointerup", (event) => {
      const done = press;
      press = null;
      if (!done) return;
      const at = timeAt(event);
      if (done.dragged) player.setRegion(done.at, at);
      else {
        if (player.region && (at < player.region[0] || at >= player.region[1])) player.clearRegion();
        player.seek(at);
        if (state.band !== null && !test()) sayBand(state.band, at);
      }
      showRegion();
    });
    stage.addEventListener("pointercancel", () => { press = null; showRegion(); });
    stage.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const at = player.position(), step = event.shiftKey ? 0.01 : 0.1, top = value.hertz.length - 1;
      const to = { ArrowLeft: at - step, ArrowRight: at + step, PageDown: at - 1, PageUp: at + 1, Home: 0, End: seconds }[event.key];
      const up = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (to === undefined && (!up || test())) return;
      event.preventDefault();
      if (up) state.band = within((state.band === null ? Math.floor(top / 2) : state.band) + up, 0, top);
      else { player.seek(to); bring(player.position()); }
      if (state.band !== null && !test()) sayBand(state.band, player.position());
      showTime();
    });

    if (cells) {
      const cellAt = (event) => {
        const spec = specOf(shown()), box = strip.getBoundingClientRect();
        return spec ? [Math.floor((event.clientY - box.top - FLAG) / rowOf(spec)), Math.floor(timeAt(event) * spec.rate)] : [0, 0];
      };
      const frameNow = () => (specOf(shown()) ? Math.floor(player.position() * specOf(shown()).rate) : 0);
      cells.addEventListener("pointermove", (event) => point(...cellAt(event)));
      cells.addEventListener("click", (event) => { point(...cellAt(event)); hearCell(); });
      cells.addEventListener("focus", () => { if (!state.cell && cells.matches(":focus-visible")) point(0, frameNow()); });
      cells.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const spec = specOf(shown()), [level, frame] = state.cell || [0, frameNow()];
        const to = { ArrowLeft: [level, frame - 1], ArrowRight: [level, frame + 1], ArrowUp: [level - 1, frame], ArrowDown: [level + 1, frame], PageUp: [level, frame - 75], PageDown: [level, frame + 75], Home: [level, 0], End: [level, Infinity] }[event.key];
        if (event.key !== "Enter" && !to) return;
        event.preventDefault();
        if (!to) { hearCell(); return; }
        point(...to);
        if (spec) bring((state.cell[1] + 0.5) / spec.rate);
      });
    }

    scroll.addEventListener("scroll", () => {
      const from = (scroll.scrollLeft / (scroll.clientWidth * state.zoom)) * seconds;
      if (Math.abs(from - state.from) * scroll.clientWidth * state.zoom < seconds) return; // less than one pixel: our own doing
      state.from = from;
      paint();
    });
    scroll.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(state.zoom * 2 ** (-event.deltaY / 200), timeAt(event));
    }, { passive: false });
    let pinch = null;
    const spanOf = ({ touches: [one, two] }) => ({ wide: Math.max(1, Math.hypot(one.clientX - two.clientX, one.clientY - two.clientY)), clientX: (one.clientX + two.clientX) / 2 });
    scroll.addEventListener("touchstart", (event) => { pinch = event.touches.length === 2 ? { ...spanOf(event), zoom: state.zoom, at: timeAt(spanOf(event)) } : null; if (pinch) press = null; }, { passive: true });
    scroll.addEventListener("touchmove", (event) => {
      if (!pinch || event.touches.length !== 2) return;
      event.preventDefault();
      press = null;
      zoom((pinch.zoom * spanOf(event).wide) / pinch.wide, pinch.at);
    }, { passive: false });

    // ---- keys of the whole view

    section.addEventListener("keydown", (event) => {
      const { key, target } = event, bracket = key === "[" || key === "]"; // which some keyboards type with Alt Graph
      if (event.defaultPrevented || target.closest("input, select, textarea, audio") || (!bracket && (event.ctrlKey || event.metaKey || event.altKey))) return;
      if (key === " ") {
        // On a button it presses the button; on the version that is heard already that would change nothing.
        if (target.closest("button:not([aria-pressed='true'].tl-snd-track), a, summary") || silent()) return;
        play.click();
      } else if (KEYS.includes(key) && key.length === 1) { if (tracks[KEYS.indexOf(key)]) choose(KEYS.indexOf(key)); else return; }
      else if (key === "[") player.startHere();
      else if (key === "]") player.endHere();
      else if (key === "+") zoom(state.zoom * 2);
      else if (key === "-") zoom(state.zoom / 2);
      else if (key.toLowerCase() === "l") player.setLoop(!player.loop);
      else if (test() && "abx".includes(key.toLowerCase()) && key.length === 1) hearing(key.toLowerCase());
      else return;
      event.preventDefault();
    });

    // The focus comes back to where it was when the view is drawn again.
    section.addEventListener("focusin", (event) => { state.focus = event.target.dataset.snd || null; });
    section.addEventListener("focusout", () => setTimeout(() => { if (section.isConnected && !section.contains(document.activeElement)) state.focus = null; }));

    // ---- the blind test

    function hearing(which) {
      const { a, b, keys, answers } = test();
      state.hears = which;
      player.choose(indexOf(which === "a" ? a : which === "b" ? b : keys[answers.length] ? b : a));
      live.textContent = `Now: ${which.toUpperCase()}`;
    }

    function beginTest(a, b, trials) {
      Object.assign(state, { blind: { ...TL.blindTest(tracks[a], tracks[b], trials, state.coin), matched: player.matched }, over: null });
      Object.assign(player, { dips: true, matched: true });
      showTest();
      hearing("a");
      blind.querySelector("[data-hears]").focus();
    }

    function leaveTest() {
      Object.assign(player, { dips: false, matched: test().matched });
      state.blind = null;
    }

    function endTest() {
      state.over = test();
      leaveTest();
      const named = tracks.findIndex((track) => track.name === state.chosen);
      showTest();
      player.choose(Math.max(0, named));
      blind.querySelector(".tl-snd-outcome").focus();
    }

    function answer(said) {
      const one = test();
      one.answers.push(said);
      if (one.answers.length === one.trials) { endTest(); return; }
      blind.querySelector(".tl-snd-trial").textContent = trialText();
      hearing("a");
    }

    const trialText = () => `Trial ${test().answers.length + 1} of ${test().trials}`;

    function showTest() {
      const can = value.blind && tracks.filter((_, i) => !player.failed(i)).length > 1;
      blind.hidden = !can;
      blind.replaceChildren(...(!can ? [] : test() ? running() : state.over ? outcome() : setting()));
    }

    function setting() {
      const menu = (name, i) => {
        const one = mark(name, h("select", { onchange: () => { state.picks[name] = tracks[one.value].name; } }, tracks.map((_, k) => h("option", { value: k, disabled: player.failed(k) }, nameOf(k)))));
        const picked = tracks.findIndex((track) => track.name === state.picks[name]);
        one.value = String(picked < 0 ? i : picked);
        return one;
      };
      const a = menu("a", 0), b = menu("b", player.chosen || 1);
      const trials = mark("trials", h("input", { type: "number", min: TRIALS[0], max: TRIALS[1], step: 1, value: state.trials }));
      const begin = button("begin", "Start", () => {
        const count = Number(trials.value);
        const problem = a.value === b.value ? "Choose two different versions." : Number.isInteger(count) && count >= TRIALS[0] && count <= TRIALS[1] ? "" : `Choose ${TRIALS[0]} to ${TRIALS[1]} trials.`;
        said.textContent = problem;
        if (problem) return;
        state.trials = count;
        beginTest(Number(a.value), Number(b.value), count);
      });
      const said = h("p", { class: "tl-said", role: "alert" });
      const box = h("details", {}, h("summary", { "data-snd": "blind" }, "Blind test (ABX): do you hear a difference?"),
        h("p", { class: "tl-note" }, "X is A or B by the toss of a coin, anew in every trial. Listen as often as you like, loop a region, and say which one X is. Versions stay loudness matched; names and results are hidden until the end."),
        h("div", { class: "tl-snd-bar" }, h("label", {}, "A ", a), h("label", {}, "B ", b), h("label", {}, "Trials ", trials), begin), said);
      box.open = Boolean(state.open);
      box.addEventListener("toggle", () => {
        state.open = box.open;
        if (box.open && !state.picks.b && player.chosen) b.value = String(player.chosen); // the one chosen since
      });
      return [box];
    }

    function running() {
      const hears = (which) => button(`hears ${which}`, which.toUpperCase(), () => hearing(which), { class: "tl-button tl-snd-abx", "data-hears": which, "aria-pressed": "false", "aria-keyshortcuts": which });
      return [h("div", { class: "tl-snd-test", role: "group", "aria-label": "Blind test" },
        h("p", {}, h("b", { class: "tl-snd-trial", "aria-live": "polite" }, trialText()), " · loudness matching stays on; the picture shows the first version only"),
        h("div", { class: "tl-snd-bar" }, ["a", "b", "x"].map(hears)),
        h("div", { class: "tl-snd-bar" }, button("is a", "X is A", () => answer(0)), button("is b", "X is B", () => answer(1)), button("stop", "Stop and show", endTest)))];
    }

    function outcome() {
      const { a, b, keys, answers, trials } = state.over, n = answers.length, right = TL.right(state.over), p = TL.tail(right, n);
      const letter = (bit) => (bit ? "B" : "A");
      const said = `${right} of ${n} right, p = ${p < 0.0001 ? p.toExponential(1) : p.toFixed(4)}.`;
      const meaning = `Guessing alone gets at least ${right} of ${n} right with this probability, ${p < LEVEL ? "so chance is a poor explanation: you very likely hear a difference." : "so this is no evidence that you hear a difference, and none that there is nothing to hear."}`;
      const early = n < trials ? ` Stopped after ${n} of ${trials}: p holds only if that was not decided by how it went.` : "";
      const again = button("again", "Another test", () => { state.over = null; state.open = true; showTest(); blind.querySelector("select").focus(); });
      const head = `A: ${TL.visibleInTable(a.name)} · B: ${TL.visibleInTable(b.name)}`;
      return [h("div", { class: "tl-snd-test" },
        h("div", { class: "tl-snd-outcome", tabindex: "-1", role: "group", "aria-label": "Outcome of the blind test" }, h("p", {}, head), n ? h("p", {}, h("b", {}, said), ` ${meaning}${early}`) : h("p", {}, "Stopped before the first answer.")),
        n ? h("ol", { class: "tl-snd-answers", "aria-label": "Trials" }, answers.map((answered, i) => h("li", {}, `X was ${letter(keys[i])}, you said ${letter(answered)} `, h("b", {}, answered === keys[i] ? "✓ right" : "✗ wrong")))) : null, again)];
    }

    // ---- versions that cannot be decoded here

    function showPlain() {
      const broken = tracks.map((_, i) => i).filter((i) => player.failed(i));
      plain.hidden = !broken.length;
      const reason = !TL.canPlay() ? "This browser cannot mix sounds (no Web Audio), so the versions are played one by one." : "These versions could not be decoded for switching without a gap; here they are played one by one.";
      plain.replaceChildren(...(broken.length ? [h("p", { class: "tl-problem" }, reason), h("ul", {}, broken.map((i) => h("li", {}, h("span", {}, nameOf(i)), h("audio", { controls: true, preload: "metadata", src: flacUrl(tracks[i].flac), "aria-label": nameOf(i) }))))] : []));
    }

    // ---- begin

    const loaded = player.load(tracks, seconds);
    for (const png of state.mels.keys()) if (!tracks.some((track) => track.mel === png)) state.mels.delete(png);
    const looked = Promise.all(tracks.map(async ({ mel: png }) => { if (!state.mels.has(png)) state.mels.set(png, await greyOf(png)); }));
    showTest();
    showPlain();
    refresh();
    tellCell();
    follow();
    TL.redraw(scroll, () => { drawings = {}; lay(); });
    const focused = state.focus && document.activeElement === document.body ? [...section.querySelectorAll("[data-snd]")].find((node) => node.dataset.snd === state.focus) : null;
    if (focused) focused.focus({ preventScroll: true });
    Promise.all([loaded, looked]).then(() => {
      if (!section.isConnected) return;
      if (!test()) showTest();
      showPlain();
      refresh();
      root.dataset.drawn = "1";
    }).catch((error) => {
      console.error(error);
      details.replaceChildren(h("p", { class: "tl-problem", role: "alert" }, "The spectrograms could not be drawn."));
    });
  };
})();
