// What a reader can do with the chart: choose days, weeks or months and a range, switch layers, use the keyboard, print.

const PRINT_SIZE = [700, 185];
const LEGIBLE_DAY = 0.75;

const container = document.getElementById("chart");
const data = JSON.parse(document.getElementById("data").textContent);
const chart = new Chart(container, data, container.dataset.unit);
const viewButtons = [...document.querySelectorAll("[data-view]")];
const rangeButtons = [...document.querySelectorAll("[data-first]")];
const legendButtons = [...document.querySelectorAll(".legend button")];
const resetButton = document.getElementById("reset");

// The buttons of ranges count in periods of the first view.
const [own] = data.views;
const indexOfOwn = (period) => chart.indexOf(GRAINS[own.grain].dateOn(new Date(own.start), Number(period)));
const rangeOf = ({ dataset }) => ({ first: indexOfOwn(dataset.first), last: indexOfOwn(dataset.last) });
const isShown = ({ first, last }) => first === chart.view.first && last === chart.view.last;

function showRange(first, last) {
  chart.show(first, last);
  updateButtons();
}

// The widest range in which the days can be told apart, or the narrowest: on a phone years are one blot.
function openingRange() {
  const ranges = rangeButtons.map(rangeOf);
  const isLegible = ({ first, last }) => container.clientWidth / (last - first + 1) > LEGIBLE_DAY;
  return ranges.find(isLegible) ?? ranges.at(-1);
}

function reset() {
  chart.showAllLayers();
  const { first, last } = openingRange();
  showRange(first, last);
}

// Shows days, weeks or months, of the same time as before.
function showView(view) {
  const range = rangeButtons.find((button) => isShown(rangeOf(button)));
  const [start, end] = [chart.dateOn(chart.view.first), new Date(chart.dateOn(chart.view.last + 1) - 1)];
  chart.use(view);
  for (const button of viewButtons) button.setAttribute("aria-pressed", button.dataset.view === view.grain);
  for (const text of document.querySelectorAll("[data-of]")) text.hidden = text.dataset.of !== view.grain;
  container.setAttribute("aria-label", `${view.grain.replace(/^./, (c) => c.toUpperCase())} to read out of the chart`);
  container.setAttribute("aria-valuemax", chart.lastDay);
  const { first, last } = range ? rangeOf(range) : { first: chart.indexOf(start), last: chart.indexOf(end) };
  showRange(first, last);
}

function updateButtons() {
  for (const button of rangeButtons) button.setAttribute("aria-pressed", isShown(rangeOf(button)));
  for (const button of legendButtons) {
    button.setAttribute("aria-pressed", !chart.hidden.has(button.dataset.layer));
    button.hidden = !chart.layers.some(({ key }) => key === button.dataset.layer);
  }
  resetButton.disabled = isShown(openingRange()) && chart.hidden.size === 0;
}

for (const button of viewButtons) {
  button.addEventListener("click", () => showView(data.views.find(({ grain }) => grain === button.dataset.view)));
}
for (const button of rangeButtons) {
  button.addEventListener("click", () => {
    const { first, last } = rangeOf(button);
    showRange(first, last);
  });
}
for (const button of legendButtons) {
  button.addEventListener("click", () => {
    chart.toggle(button.dataset.layer);
    updateButtons();
  });
}
resetButton.addEventListener("click", reset);

// The keyboard moves the read-out, and the view with it. To a screen reader the chart is a slider of days,
// the one kind of control whose value it reads out on every step.

const KEYS = {
  ArrowLeft: (day) => day - 1,
  ArrowRight: (day) => day + 1,
  PageUp: (day) => day - chart.grain.page,
  PageDown: (day) => day + chart.grain.page,
  Home: () => 0,
  End: () => chart.lastDay,
};

container.addEventListener("focus", () => pointAt(chart.day ?? Math.max(chart.view.first, chart.forecastStart)));
container.addEventListener("blur", () => pointAt(null));
container.addEventListener("keydown", (event) => {
  if (event.key === "Escape") reset();
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  const day = KEYS[event.key](chart.day ?? chart.forecastStart);
  const reached = Math.min(chart.lastDay, Math.max(0, day));
  followTo(reached);
  pointAt(reached);
});

function followTo(day) {
  const { first, last } = chart.view;
  const by = Math.min(0, day - first) + Math.max(0, day - last);
  if (by) showRange(first + by, last + by);
}

function pointAt(day) {
  chart.pointAt(day);
  if (day === null) return;
  const readings = chart.readings(day).map(({ label, text }) => `${label} ${text}`);
  container.setAttribute("aria-valuenow", day);
  container.setAttribute("aria-valuetext", [chart.nameOf(day), ...readings].join(", "));
}

// Paper: the chart is drawn for its width. What is folded is printed if it was opened.

const tableDetails = document.getElementById("days");

addEventListener("beforeprint", () => {
  chart.pointAt(null);
  chart.resize(...PRINT_SIZE);
});
addEventListener("afterprint", () => chart.resize(container.clientWidth));

// The link to the table opens it: a closed one would be an empty place to arrive at.
document.querySelector(".to-days").addEventListener("click", () => (tableDetails.open = true));

// The table as a file, for a spreadsheet: numbers without separators, an unknown one empty.
const csvButton = document.getElementById("csv");
csvButton.hidden = false;
csvButton.addEventListener("click", () => {
  const header = [...tableDetails.querySelectorAll("[data-column]")].map(({ dataset }) => dataset.column);
  const rows = [...tableDetails.querySelectorAll("tbody tr")].map(({ cells }) =>
    [...cells].map(({ textContent }) => textContent.replaceAll(",", "").replace("n/a", "")),
  );
  const text = [header, ...rows].map((row) => `${row.join(",")}\r\n`).join("");
  save("forecast.csv", new Blob([text], { type: "text/csv" }));
});

// The chart as it is shown, as a file, at twice its size for a slide.
const pngButton = document.getElementById("png");
pngButton.hidden = false;
pngButton.addEventListener("click", async () => {
  chart.pointAt(null);
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(chart.asSvg())}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * chart.width, 2 * chart.height];
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(document.documentElement).backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => save("forecast.png", blob));
});

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

container.setAttribute("aria-valuemax", chart.lastDay);
chart.resize(container.clientWidth);
new ResizeObserver(() => chart.resize(container.clientWidth)).observe(container);
reset();
