// Draws the layers of days, weeks or months in view; a "day" below is any of them. SVG rather than a canvas or a
// charting library: five series are little to draw, CSS recolours them for a dark screen and for paper, and print stays sharp.

const TOP = 30;
const BOTTOM = 44;
const RIGHT = 14;
const CHARACTER = 7;
const PIXELS_PER_DATE = 62;
const PIXELS_PER_VALUE = 48;
const FEWEST_DAYS = 7;
const PAINT = [
  "fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray", "stroke-linejoin",
  "opacity", "font-family", "font-size", "font-weight",
];
const RING = "m-1.5,0a1.5,1.5 0 1,0 3,0a1.5,1.5 0 1,0 -3,0";

class Chart {
  constructor(container, data, unit) {
    this.svg = container.querySelector("svg");
    this.tooltip = new Tooltip(container.querySelector(".tooltip"));
    this.unit = unit;
    this.symbol = data.symbol;
    this.hidden = new Set();
    this.use(data.views[0]);
    // Of weeks and months, the first of the forecast may have begun before it.
    this.forecastFrom = this.grain.beginning(this.dateOn(this.forecastStart));
  }

  // Takes the values of another view: of days, weeks or months. Nothing is drawn until show().
  use({ layers, forecastStart, holidays, grain, start, decimals }) {
    Object.assign(this, { layers, forecastStart, holidays, grain: GRAINS[grain] });
    this.dateOn = (day) => this.grain.dateOn(new Date(start), day);
    this.lastDay = Math.max(...layers.map((layer) => layer.from + layer.bounds[0].length - 1));
    const format = numberFormat(decimals);
    // "$1,100.25", or "12 to 15 cups" of an interval.
    this.format = (values) =>
      this.symbol
        ? values.map((value) => format(value).replace(/^-?/, `$&${this.symbol}`)).join(" to ")
        : `${values.map(format).join(" to ")} ${this.unit}`.trimEnd();
    this.view = { first: 0, last: this.lastDay };
    this.day = null;
  }

  resize(width, height = Math.round(Math.min(460, Math.max(290, width * 0.42)))) {
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    this.draw();
  }

  show(first, last) {
    this.view = { first: Math.max(0, first), last: Math.min(this.lastDay, last) };
    this.draw();
  }

  toggle(key) {
    if (!this.hidden.delete(key)) this.hidden.add(key);
    this.draw();
  }

  showAllLayers() {
    this.hidden.clear();
    this.draw();
  }

  // Puts the read-out on a day, or takes it away with null.
  pointAt(day) {
    this.day = day;
    this.drawCursor();
  }

  // The day under a horizontal position on the screen.
  dayAt(clientX) {
    const day = Math.round(this.exactDayAt(clientX));
    return Math.min(this.view.last, Math.max(this.view.first, day));
  }

  // The same as a fraction: 7.5 is between two days.
  exactDayAt(clientX) {
    return this.view.first - 0.5 + this.shareAt(clientX) * (this.view.last - this.view.first + 1);
  }

  // How far along the plot a horizontal position on the screen is: 0 at its left end, 1 at its right end.
  shareAt(clientX) {
    const box = this.svg.getBoundingClientRect();
    return ((clientX - box.left) * (this.width / box.width) - this.left) / this.plotWidth;
  }

  // The range of `count` days, within those that there are, in which a day is at a share of the plot.
  rangeWith(day, share, count) {
    const fewest = Math.min(FEWEST_DAYS, this.view.last - this.view.first + 1);
    const days = Math.min(this.lastDay + 1, Math.max(fewest, Math.round(count)));
    const first = Math.min(this.lastDay + 1 - days, Math.max(0, Math.round(day + 0.5 - share * days)));
    return { first, last: first + days - 1 };
  }

  // The index of the day, week or month that holds a date; of the nearest one there is.
  indexOf(date) {
    let [low, high] = [0, this.lastDay];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.dateOn(middle) <= date) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  // "Thu 26 Nov 2026, Thanksgiving Day", "Week of 23 Nov 2026, Thanksgiving Day", "Nov 2026"
  nameOf(day) {
    const holiday = this.holidays[day];
    return this.grain.nameOf(this.dateOn(day)) + (holiday ? `, ${holiday}` : "");
  }

  // What is known of a day: [{ key, label, text }].
  readings(day) {
    return this.visibleLayers().flatMap(({ key, label, ...layer }) => {
      const bounds = boundsOn(layer, day);
      return bounds ? [{ key, label, text: this.format(bounds) }] : [];
    });
  }

  // Marks the days that a drag has covered so far; no arguments take the mark away.
  select(first, last) {
    this.selection.replaceChildren();
    if (first === undefined) return;
    const [left, right] = [this.x(Math.min(first, last)), this.x(Math.max(first, last))];
    this.selection.append(this.node("rect", { x: left, width: right - left, height: this.plotHeight }));
  }

  draw() {
    if (!this.width) return;
    const values = this.layOut();
    this.selection = this.node("g", { class: "selection" });
    this.cursor = this.node("g", { class: "cursor" });
    // A nested svg clips at its edges, with no clip path and no ids.
    const plot = this.node(
      "svg",
      { x: this.left, y: TOP, width: this.plotWidth, height: this.plotHeight },
      ...this.visibleLayers().reverse().map((layer) => this.layerPath(layer)),
      this.selection,
    );
    // Where days are narrow, full lines would run into one blot.
    this.svg.style.setProperty("--weight", Math.min(1, Math.max(0.45, this.dayWidth / 1.5)));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.replaceChildren(
      ...this.valueAxis(values),
      ...this.dateAxis(),
      ...this.forecastMarker(),
      plot,
      this.cursor,
    );
    this.drawCursor();
  }

  visibleLayers() {
    return this.layers.filter((layer) => !this.hidden.has(layer.key));
  }

  // Sets the scales, and returns the marks of the value axis, whose labels decide where the plot begins.
  layOut() {
    this.plotHeight = this.height - TOP - BOTTOM;
    const [low, high] = this.extent();
    const values = valueTicks(low, high, Math.round(this.plotHeight / PIXELS_PER_VALUE));
    const [bottom, top] = [values.ticks[0], values.ticks.at(-1)];
    this.left = 12 + CHARACTER * Math.max(...values.ticks.map((tick) => values.format(tick).length));
    this.plotWidth = this.width - this.left - RIGHT;
    this.dayWidth = this.plotWidth / (this.view.last - this.view.first + 1);
    this.x = (day) => (day - this.view.first + 0.5) * this.dayWidth;
    this.y = (value) => (1 - (value - bottom) / (top - bottom)) * this.plotHeight;
    return values;
  }

  extent() {
    let [low, high] = [Infinity, -Infinity];
    for (const layer of this.visibleLayers()) {
      for (const { bounds } of runsInView(layer, this.view).flat()) {
        low = Math.min(low, ...bounds);
        high = Math.max(high, ...bounds);
      }
    }
    if (low > high) return [0, 1];
    // An axis that starts above zero exaggerates; it is worth it only where the lines would be flat without.
    return low > 0 && low < high / 2 ? [0, high] : [low, high];
  }

  valueAxis({ ticks, format }) {
    const marks = ticks.flatMap((value) => {
      const y = TOP + this.y(value);
      return [
        this.node("line", { class: value ? "grid" : "zero", x1: this.left, x2: this.width - RIGHT, y1: y, y2: y }),
        this.node("text", { x: this.left - 8, y, dy: "0.32em", "text-anchor": "end" }, format(value)),
      ];
    });
    return [...marks, this.node("text", { class: "unit", x: 0, y: 12 }, this.unit)];
  }

  dateAxis() {
    const ticks = dateTicks(this.view, this.dateOn, (PIXELS_PER_DATE / this.dayWidth) * this.grain.days);
    return ticks.flatMap(({ day, label, year }) => {
      const x = this.left + this.x(day);
      const y = TOP + this.plotHeight;
      return [
        this.node("line", { class: "tick", x1: x, x2: x, y1: y, y2: y + 5 }),
        this.node("text", { x, y: y + 20, "text-anchor": "middle" }, label),
        this.node("text", { class: "year", x, y: y + 37, "text-anchor": "middle" }, year),
      ];
    });
  }

  forecastMarker() {
    const { first, last } = this.view;
    if (this.forecastStart < first || this.forecastStart > last) return [];
    const x = this.left + this.x(this.forecastStart - 0.5);
    const side = this.width - x > 180 ? { x: x + 6, "text-anchor": "start" } : { x: x - 6, "text-anchor": "end" };
    return [
      this.node("line", { class: "forecast-start", x1: x, x2: x, y1: TOP - 14, y2: TOP + this.plotHeight }),
      this.node("text", { class: "forecast-start", y: TOP - 6, ...side }, `Forecast from ${this.forecastFrom}`),
    ];
  }

  layerPath(layer) {
    const shape = (run) => (isInterval(layer) ? this.area(run) : this.line(run, 0));
    return this.node("path", {
      class: isInterval(layer) ? "interval" : "line",
      "data-layer": layer.key,
      d: runsInView(layer, this.view).map(shape).join(""),
    });
  }

  line(run, side) {
    const points = run.map(({ day, bounds }) => [this.x(day).toFixed(1), this.y(bounds[side]).toFixed(1)]);
    // A day between two missing ones has no line to be seen by: it gets a small ring.
    return `M${points.join("L")}${points.length === 1 ? RING : ""}`;
  }

  area(run) {
    // A single day has no width of its own: it gets that of a bar.
    const half = Math.min(0.45, 8 / this.dayWidth);
    const [{ day, bounds }] = run;
    const days = run.length > 1 ? run : [{ day: day - half, bounds }, { day: day + half, bounds }];
    return `${this.line(days, 1)}L${this.line(days.toReversed(), 0).slice(1)}Z`;
  }

  drawCursor() {
    const day = this.day;
    const inView = day !== null && day >= this.view.first && day <= this.view.last;
    const readings = inView ? this.readings(day) : [];
    this.cursor.replaceChildren();
    if (!readings.length) {
      this.tooltip.hide();
      return;
    }
    const x = this.left + this.x(day);
    this.cursor.append(this.node("line", { x1: x, x2: x, y1: TOP, y2: TOP + this.plotHeight }));
    for (const layer of this.visibleLayers()) {
      const bounds = boundsOn(layer, day);
      if (!bounds || isInterval(layer)) continue;
      const cy = TOP + this.y(bounds[0]);
      this.cursor.append(this.node("circle", { "data-layer": layer.key, cx: x, cy, r: 4 }));
    }
    this.tooltip.show(this.nameOf(day), readings);
    this.tooltip.place(x, TOP + 4, this.width);
  }

  // The drawing as a file of its own, which the page's style sheet does not reach.
  asSvg() {
    const copy = this.svg.cloneNode(true);
    copy.setAttribute("width", this.width);
    copy.setAttribute("height", this.height);
    const copies = copy.querySelectorAll("*");
    for (const [index, element] of this.svg.querySelectorAll("*").entries()) {
      const style = getComputedStyle(element);
      for (const property of PAINT) copies[index].setAttribute(property, style.getPropertyValue(property));
    }
    return new XMLSerializer().serializeToString(copy);
  }

  node(name, attributes, ...children) {
    const element = document.createElementNS(this.svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }
}

const isInterval = (layer) => layer.bounds.length === 2;

// [value] of a line, [lower, upper] of an interval, null where the day is unknown.
function boundsOn(layer, day) {
  const bounds = layer.bounds.map((values) => values[day - layer.from] ?? null);
  return bounds.includes(null) ? null : bounds;
}

// The days in view that have a value, as runs without a gap. One day more on either side takes the line
// to the edge of the plot.
function runsInView(layer, { first, last }) {
  const runs = [];
  let run = null;
  for (let day = first - 1; day <= last + 1; day++) {
    const bounds = boundsOn(layer, day);
    if (bounds && !run) runs.push((run = []));
    if (bounds) run.push({ day, bounds });
    else run = null;
  }
  return runs;
}
