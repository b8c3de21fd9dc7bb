// What all views share: building elements from plain text, mounting, downloads.
// `asked` is the address that the page was opened with; panels write theirs into it later.
// `kept`: what each panel last ran, so that it comes back when it is opened again; `given`: what the panels of each
// family hand over to one another.
window.TL = window.TL || { views: {}, asked: location.search, kept: {}, given: {} };

// h("td", {class: "num"}, "text", child): an element. Strings become text nodes, never markup.
TL.h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
};

// Draw props.value beside the component's template now and whenever it changes. Beside, because Gradio renders the
// template again after any change of a property and would wipe out what is inside. A view that fails says so in place.
TL.mount = (element, props, watch, trigger) => {
  const root = TL.h("div", { class: "tl-view" });
  element.after(root);
  const draw = () => {
    root.replaceChildren();
    root.tlValue = null;
    if (!props.value) return;
    const kind = props.value.kind, data = JSON.parse(props.value.data);
    root.dataset.kind = kind;
    try {
      TL.views[kind](root, data, trigger);
    } catch (error) {
      console.error(error);
      root.append(TL.h("p", { class: "tl-problem", role: "alert" }, "This view could not be drawn."));
    }
  };
  draw();
  watch("value", draw);
};

// The heading, the one line below it and the text alternative that every view has.
TL.frame = (root, value, ...tools) => {
  const id = `tl-${(TL.count = (TL.count || 0) + 1)}`;
  const section = TL.h("section", { class: "tl-frame", "aria-labelledby": id });
  const head = TL.h("div", { class: "tl-frame-head" }, TL.h("h3", { id }, value.title));
  if (tools.length) head.append(TL.h("div", { class: "tl-tools" }, ...tools));
  section.append(head);
  if (value.note) section.append(TL.h("p", { class: "tl-note" }, value.note));
  const body = TL.h("div", { class: "tl-frame-body" });
  section.append(body);
  root.append(section);
  root.tlValue = value;
  return body;
};

// Another panel is another entry of the browser's history, so that Back returns to the panel before.
// Charts refer to their own patterns by the page's address, so they must hear when it changes.
TL.setAddress = (query) => {
  const slug = (search) => new URLSearchParams(search).get("sys");
  const before = slug(location.search);
  history[before && before !== slug(query) ? "pushState" : "replaceState"](null, "", `?${query}`);
  window.dispatchEvent(new Event("tl-address"));
};

// What a link cannot carry (a long text, an upload) outlives a reload of the page in the browser's own store.
const STORE = "tokenlab";
TL.keepForReload = ({ query, left_out, slug, values }) => {
  try {
    if (left_out) sessionStorage.setItem(STORE, JSON.stringify({ query, slug, values }));
    else sessionStorage.removeItem(STORE);
  } catch { /* full, or forbidden by the browser: the link's part is all that comes back */ }
};

// The stored {query, slug, values} as JSON when the page was loaded again at the address it belongs to, else "".
TL.keptForReload = () => {
  if (performance.getEntriesByType("navigation")[0]?.type === "navigate") return ""; // a link opens as it says
  try {
    const stored = sessionStorage.getItem(STORE);
    return stored && TL.asked === `?${JSON.parse(stored).query}` ? stored : "";
  } catch { return ""; }
};

TL.button = (label, onclick, attributes = {}) => TL.h("button", { type: "button", class: "tl-button", onclick, ...attributes }, label);

TL.toggle = (label, pressed, onchange) => {
  const button = TL.button(label, () => {
    const now = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(now));
    onchange(now);
  }, { "aria-pressed": String(pressed) });
  return button;
};

TL.download = (name, text, type) => {
  const link = TL.h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

const copyByHand = (text) => {
  const box = TL.h("textarea", { style: "position:fixed;opacity:0" });
  box.value = text;
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
};

TL.copy = async (text, button) => {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copyByHand(text); // a page that came over plain http has no clipboard
  const label = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1500);
};

// The names of characters that have no shape of their own.
TL.INVISIBLE = {
  0x20: "·", 0x09: "⇥", 0x0a: "↵", 0x0d: "CR", 0xa0: "NBSP", 0xad: "SHY", 0x200b: "ZWSP", 0x200c: "ZWNJ", 0x200d: "ZWJ",
  0x200e: "LRM", 0x200f: "RLM", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO", 0x202e: "RLO",
  0x2028: "LS", 0x2029: "PS", 0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0x3000: "IDSP", 0xfeff: "BOM",
};

// A grapheme that cannot be seen -> its name; null for one that can.
TL.invisibleName = (grapheme) => {
  const names = [];
  for (const character of grapheme) {
    const code = character.codePointAt(0);
    if (TL.INVISIBLE[code]) names.push(TL.INVISIBLE[code]);
    else if (code < 32 || (code >= 127 && code < 160)) names.push("x" + code.toString(16).padStart(2, "0"));
    else if (/\p{Cf}|\p{Zs}|\p{Cn}|\p{Co}/u.test(character)) names.push("U+" + code.toString(16).toUpperCase().padStart(4, "0"));
    else return null; // e.g. an emoji joined by ZWJ: visible as a whole
  }
  return names.join(" ");
};

// Text for reading aloud or for details: whitespace and invisible characters by name.
TL.visible = (text) => {
  let out = "";
  for (const character of text) {
    const name = TL.invisibleName(character);
    out += name === null ? character : name.length === 1 ? name : `⟨${name}⟩`;
  }
  return out;
};

TL.number = (value) => {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  return value.toLocaleString("en-US", size >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 });
};
