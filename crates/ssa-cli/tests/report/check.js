// Looks at the page in every frame as a reader would, and replaces this page by what is wrong.
const problems = [];

function check(frame) {
  const page = frame.contentDocument;
  const width = page.documentElement.clientWidth;
  const report = (what, element) => {
    const text = (element.textContent || element.tagName).trim().slice(0, 60);
    problems.push(`${width} pixels: ${what}: ${text}`);
  };
  const meet = (a, b) =>
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

  if (page.documentElement.scrollWidth > width) report("wider than the window", page.body);
  const figures = page.querySelectorAll("figure");
  for (const figure of figures) {
    const plot = figure.querySelector("svg").getBoundingClientRect();
    // A row of intervals takes 40 pixels.
    const least = figure.querySelector(".spread") ? 40 : 100;
    if (plot.width < 150 || plot.height < least) report("a small plot", figure);
    const frame = figure.getBoundingClientRect();
    for (const element of figure.querySelectorAll("text, span, .foot, figcaption")) {
      const box = element.getBoundingClientRect();
      const inside = box.left >= frame.left && box.right <= frame.right
        && box.top >= frame.top && box.bottom <= frame.bottom;
      if (!inside) report("clipped", element);
    }
    for (const kind of [".middle", ".end", ".value"]) {
      const labels = [...figure.querySelectorAll(kind)];
      const boxes = labels.map(label => label.getBoundingClientRect());
      boxes.forEach((box, index) => {
        if (boxes.slice(0, index).some(other => meet(box, other))) {
          report("over another label", labels[index]);
        }
      });
    }
  }
  const texts = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const parent = texts.currentNode.parentElement;
    const size = parseFloat(frame.contentWindow.getComputedStyle(parent).fontSize);
    if (size < 9 && texts.currentNode.data.trim()) report(`text of ${size} pixels`, parent);
  }
  for (const element of page.querySelectorAll("h1, h2, h3, p, dt, dd, th, td")) {
    const scrolls = element.closest(".scroll");
    if (!scrolls && element.scrollWidth > element.clientWidth + 1) report("cut off", element);
  }
  return figures.length;
}

onerror = message => problems.push(message);
onload = () => {
  const figures = [...document.querySelectorAll("iframe")].map(check);
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify({ figures, problems });
  document.body.replaceChildren(result);
};
