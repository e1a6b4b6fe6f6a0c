// What a reader sees of a page of the documentation, measured in the page (tests/engine/test_docs_site.py).
(async () => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  // Any colour of CSS as [red, green, blue, alpha], alpha from 0 to 1.
  const parsed = (colour) => {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = (top, bottom) => [0, 1, 2].map((i) => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parsed(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reduceRight((bottom, top) => over(top, bottom), [255, 255, 255, 1]);
  };
  // WCAG 2: relative luminance, and the contrast of two colours.
  const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const named = (element) =>
    element.tagName.toLowerCase() + [...element.classList].map((name) => "." + name).join("");

  await document.fonts.ready;
  const pictures = [...document.images];
  for (const picture of pictures) picture.loading = "eager";
  const missing = [];
  await Promise.all(pictures.map((one) => one.decode().catch(() => missing.push(one.src))));

  const faint = new Map();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let read = 0;
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim();
    const element = texts.currentNode.parentElement;
    if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    read += 1;
    const background = behind(element);
    const found = contrast(over(parsed(getComputedStyle(element).color), background), background);
    const where = `${element.parentElement ? named(element.parentElement) + " > " : ""}${named(element)}`;
    if (found < 4.5 && !faint.has(where)) faint.set(where, `${where}: ${found.toFixed(2)} "${text.slice(0, 40)}"`);
  }

  // A picture is drawn on what is behind it. Its ink is what stands out from its most frequent colour.
  const pale = [];
  for (const picture of pictures.filter((one) => one.naturalWidth)) {
    const [width, height] = [400, Math.round((400 * picture.naturalHeight) / picture.naturalWidth)];
    const sheet = document.createElement("canvas");
    [sheet.width, sheet.height] = [width, height];
    const drawn = sheet.getContext("2d");
    drawn.fillStyle = `rgb(${behind(picture).slice(0, 3).join(" ")})`;
    drawn.fillRect(0, 0, width, height);
    drawn.drawImage(picture, 0, 0, width, height);
    const data = drawn.getImageData(0, 0, width, height).data;
    const counts = new Map();
    for (let i = 0; i < data.length; i += 4) {
      const key = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
      counts.set(key, (counts.get(key) || 0) + 1);
    }
    const colours = [...counts].map(([key, count]) => [[key >> 16, (key >> 8) & 255, key & 255], count]);
    const ground = colours.reduce((most, one) => (one[1] > most[1] ? one : most))[0];
    const ink = colours.filter(([colour]) => contrast(colour, ground) >= 4.5).reduce((sum, one) => sum + one[1], 0);
    if (ink < 0.005 * width * height) pale.push(`${picture.src}: ${((100 * ink) / width / height).toFixed(2)} % ink`);
  }

  const screen = document.documentElement.clientWidth;
  const scrolls = (element) => {
    for (let at = element.parentElement; at; at = at.parentElement)
      if (getComputedStyle(at).overflowX !== "visible") return true;
    return false;
  };
  const wide = [...document.querySelectorAll("main *, article *")]
    .filter((one) => one.getBoundingClientRect().right > screen + 1 && !scrolls(one))
    .slice(0, 5)
    .map((one) => `${named(one)} "${one.textContent.trim().slice(0, 40)}"`);
  return {
    read, missing, pale, wide, faint: [...faint.values()],
    width: document.documentElement.scrollWidth,
    background: behind(document.body).slice(0, 3),
  };
})()
