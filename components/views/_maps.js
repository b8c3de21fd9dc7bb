// What views of attention share: maps that travel as grey PNGs, the colours of the style sheet, a walk over small images.
(() => {
  const { h } = TL;

  // One byte of a map -> the share of its largest weight.
  TL.SQUARE = Float32Array.from({ length: 256 }, (_, p) => (p / 255) ** 2);

  TL.image = async (png) => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    return image;
  };

  // The bytes of grey PNGs of one size.
  TL.greys = (pngs, width, height) => {
    const context = h("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
    return Promise.all(pngs.map(async (png) => {
      context.drawImage(await TL.image(png), 0, 0);
      const rgba = context.getImageData(0, 0, width, height).data;
      const grey = new Uint8Array(width * height);
      for (let i = 0; i < grey.length; i++) grey[i] = rgba[4 * i];
      return grey;
    }));
  };

  // 256 colours, as one 32-bit pixel each, between three "r g b" of the style sheet.
  TL.ramp = (node) => {
    const style = getComputedStyle(node);
    const stops = ["low", "middle", "high"].map((name) => style.getPropertyValue(`--tl-am-${name}`).trim().split(/\s+/).map(Number));
    const bytes = new Uint8ClampedArray(4 * 256);
    for (let p = 0; p < 256; p++) {
      const at = (2 * p) / 255, i = at < 1 ? 0 : 1;
      for (let c = 0; c < 3; c++) bytes[4 * p + c] = stops[i][c] + (at - i) * (stops[i + 1][c] - stops[i][c]);
      bytes[4 * p + 3] = 255;
    }
    return new Uint32Array(bytes.buffer);
  };

  // Where a key leads from node number `at`: left and right in order, up and down by place; undefined for other keys.
  TL.walk = (key, nodes, at) => {
    if (key === "ArrowRight") return nodes[at + 1] || null;
    if (key === "ArrowLeft") return nodes[at - 1] || null;
    if (key === "Home") return nodes[0];
    if (key === "End") return nodes[nodes.length - 1];
    if (key !== "ArrowDown" && key !== "ArrowUp") return undefined;
    const down = key === "ArrowDown", places = nodes.map((node) => node.getBoundingClientRect()), here = places[at];
    const below = nodes.filter((_, i) => Math.abs(places[i].left - here.left) < 4 && (down ? places[i].top > here.top + 4 : places[i].top < here.top - 4));
    return (down ? below[0] : below[below.length - 1]) || null;
  };
})();
