// Pictures of one subject side by side, each with what is known about it; on demand the first one laid over another.
(() => {
  const { h } = TL;
  const SIGNS = { right: "✓", wrong: "✗" };
  const SMALL = 288, LARGE = 560; // px of the longest side: in the row, and under the edge
  const source = (png) => `data:image/png;base64,${png}`;
  const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "");

  // Width and height stand in bytes 16 to 23 of a PNG.
  const sizeOf = (png) => {
    const head = Uint8Array.from(atob(png.slice(0, 32)), (character) => character.charCodeAt(0));
    const view = new DataView(head.buffer);
    return [view.getUint32(16), view.getUint32(20)];
  };

  // A small picture is enlarged by a whole number, so that all of its pixels are equal squares; a large one is reduced,
  // and then smoothly, because whole rows of pixels would drop out.
  const drawn = (item, most) => {
    const [width, height] = sizeOf(item.png), longest = Math.max(width, height);
    const scale = longest <= most ? Math.floor(most / longest) : most / longest;
    return h("img", {
      src: source(item.png), alt: [item.name, item.mark].filter(Boolean).join(", "), width, height, draggable: "false",
      class: scale >= 1 ? "tl-pic-pixels" : null, style: `width:${Math.max(1, Math.round(width * scale))}px`,
    });
  };

  // A word such as "right" as a label with a sign of its own, so that it does not rest on colour.
  TL.mark = (word) => (word ? h("span", { class: `tl-pic-mark ${word in SIGNS ? word : ""}` }, SIGNS[word] ? h("i", { "aria-hidden": "true" }, `${SIGNS[word]} `) : null, word) : null);

  // Headings and what they say, as a list.
  TL.facts = (facts) => {
    const entries = Object.entries(facts);
    const text = (fact) => (typeof fact === "string" ? TL.visibleInTable(fact) : TL.number(fact));
    return entries.length ? h("dl", { class: "tl-pic-facts" }, entries.map(([name, fact]) => h("div", {}, h("dt", {}, name), h("dd", {}, text(fact))))) : null;
  };

  TL.views.Pictures = (root, value) => {
    const { items } = value;
    // What was chosen stays when a run goes on and the view is drawn again.
    const state = (root.tlPictures = root.tlPictures || { edge: 50, other: 1 });
    const body = TL.frame(root, value);
    if (value.slide && items.length > 1) body.append(slide());
    body.append(h("div", { class: "tl-pic-row", role: "group", "aria-label": value.alt }, items.map(card)));

    function card(item, i) {
      const save = () => TL.download(`${[slug(value.title), slug(item.name) || i + 1].join("-")}.png`, Uint8Array.from(atob(item.png), (c) => c.charCodeAt(0)), "image/png");
      const image = drawn(item, SMALL);
      return h("figure", { class: "tl-pic-card", style: `width:${image.style.width}` },
        h("figcaption", {}, h("b", {}, TL.visibleInTable(item.name)), TL.mark(item.mark)),
        image, TL.facts(item.facts),
        TL.button("PNG", save, { "aria-label": `Download ${item.name} as PNG`, title: "Download this picture as PNG" }));
    }

    function slide() {
      const first = items[0];
      state.other = Math.min(state.other, items.length - 1);
      const stage = h("div", { class: "tl-pic-stage" });
      const range = h("input", { type: "range", min: "0", max: "100", step: "1", value: String(state.edge), "aria-label": "Where the edge stands", oninput: () => move(Number(range.value)) });
      const menu = h("select", { onchange: () => { state.other = Number(menu.value); show(); } }, items.slice(1).map((item, i) => h("option", { value: i + 1 }, TL.visibleInTable(item.name))));
      const right = items.length > 2 ? h("label", {}, "right of the edge ", menu) : h("span", {}, `right of the edge: ${TL.visibleInTable(items[1].name)}`);
      menu.value = String(state.other);

      function move(edge) {
        state.edge = Math.max(0, Math.min(100, edge));
        range.value = String(Math.round(state.edge));
        range.setAttribute("aria-valuetext", `${Math.round(state.edge)} % ${first.name}, then ${items[state.other].name}`);
        stage.style.setProperty("--tl-pic-edge", `${state.edge}%`);
      }

      function show() {
        const over = drawn(first, LARGE);
        over.classList.add("tl-pic-over");
        stage.style.width = over.style.width;
        stage.replaceChildren(drawn(items[state.other], LARGE), over, h("i", { class: "tl-pic-edge", "aria-hidden": "true" }));
        move(state.edge);
      }

      const follow = (event) => {
        const box = stage.getBoundingClientRect();
        move((100 * (event.clientX - box.left)) / box.width);
      };
      stage.addEventListener("pointerdown", (event) => { event.preventDefault(); stage.setPointerCapture(event.pointerId); follow(event); range.focus({ preventScroll: true }); });
      stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });
      show();
      return h("div", { class: "tl-pic-slide" }, h("p", { class: "tl-pic-sides" }, h("span", {}, `left of the edge: ${TL.visibleInTable(first.name)}`), right), stage, range);
    }
  };
})();
